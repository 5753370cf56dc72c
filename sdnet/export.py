"""Exports the network as one MindIR file for MindSpore Lite and others, and verifies it first."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from sdnet.config import MOST_BATCH
from sdnet.errors import InputError, shown
from sdnet.evaluation.evaluate import Evaluation
from sdnet.files import check_place, checksum_path, put_with_checksum, refuse_replaced_input
from sdnet.network.quiet import quiet_mindspore
from sdnet.parameters.published import LoadedModel

TOLERANCE = 1e-5
_PROBE_SEED = 0
# `mindspore.export` refuses any other character of a path.
_ACCEPTED = re.compile(r"[0-9a-zA-Z@_\-.:/]+")


class ExportDiffers(ArithmeticError):
    """The exported file does not compute what the checkpoint does; it was not kept."""


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of an export.

    difference: the largest absolute difference between the outputs of the file and of the checkpoint, at most
    TOLERANCE.
    sha256: of the written file.
    """

    difference: float
    sha256: str
    model: LoadedModel


def export_checkpoint(checkpoint: Path, out: Path, file_format: str = "mindir", batch: int = 1) -> Exported:
    """Write the embedding network of a checkpoint, and prove that the file computes the same.

    The file takes uint8 [batch, 64, 128], optical left and SAR right, as patches are stored, and returns two
    float32 [batch, 128]: optical and SAR embeddings. It includes the normalisation.

    `out` is written atomically, then `<out>.sha256`.
    Raises ExportDiffers, and InputError for a bad checkpoint, another format, or `air`, which needs an Ascend
    host.
    """
    _check(out, file_format, batch)
    refuse_replaced_input(out, checkpoint)
    evaluation, model = Evaluation.of_checkpoint(checkpoint)
    probe = np.random.default_rng(_PROBE_SEED).integers(0, 256, (batch, 64, 128), np.uint8)
    expected = evaluation.embed(probe)
    with _scratch() as folder:
        written = folder / "sdnet.mindir"
        with quiet_mindspore():
            ms.export(
                evaluation.embedder,
                Tensor(probe),
                file_name=str(written.with_suffix("")),
                file_format="MINDIR",
            )
            found = nn.GraphCell(ms.load(str(written)))(Tensor(probe))
        pairs = zip(expected, found, strict=True)
        difference = max(float(np.abs(want - got.asnumpy()).max()) for want, got in pairs)
        if not difference <= TOLERANCE:
            raise ExportDiffers(f"{out}: outputs differ by {difference:.1e}, above {TOLERANCE}; not kept")
        return Exported(difference, put_with_checksum(written.read_bytes(), out), model)


@contextmanager
def _scratch() -> Iterator[Path]:
    """A temporary folder whose path MindSpore accepts: no space, no letter outside ASCII."""
    places = (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm")
    usable = [place for place in places if _ACCEPTED.fullmatch(place) and os.access(place, os.W_OK)]
    if not usable:
        raise InputError(f"MindSpore cannot export to any of {', '.join(places)}; set TMPDIR to a plain path")
    with tempfile.TemporaryDirectory(prefix="sdnet-export-", dir=usable[0]) as folder:
        try:
            yield Path(folder)
        except OSError as error:
            if error.filename is None:  # from a write of MindSpore's, which does not name its file
                error.filename = folder
            raise


def _check(out: Path, file_format: str, batch: int) -> None:
    if file_format == "air":
        raise InputError("format air needs an Ascend host with CANN; export mindir here, or run this there")
    if file_format != "mindir":
        raise InputError(f"format {file_format} is not known; it must be mindir, or air on an Ascend host")
    if not out.name.endswith(".mindir"):
        raise InputError(f"{out} does not end in .mindir; MindSpore loads no other name")
    check_place(out)
    check_place(checksum_path(out))
    if not 1 <= batch <= MOST_BATCH:
        raise InputError(f"batch is {shown(batch)}; it must be from 1 to {MOST_BATCH}")
