"""MindIR: the network in one file that MindSpore Lite and others load, checked before it counts."""

import os
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from sdnet.errors import InputError
from sdnet.evaluation import Evaluation
from sdnet.files import check_place
from sdnet.quiet import quiet_mindspore

TOLERANCE = 1e-5
_PROBE_SEED = 0


class ExportDiffers(ArithmeticError):
    """The exported file does not compute what the checkpoint does; it was not kept."""


def export_checkpoint(checkpoint: Path, out: Path, file_format: str = "mindir", batch: int = 1) -> float:
    """Write the embedding network of a checkpoint, and prove that the file computes the same.

    The file takes uint8 [batch, 64, 128], optical left and SAR right, as patches are stored, and
    gives two float32 [batch, 128]: optical and SAR embeddings. Normalisation is inside.

    Returns the largest absolute difference between the reloaded file's outputs and the
    checkpoint's, at most TOLERANCE; else ExportDiffers. `out` appears whole or not at all.
    Raises InputError for a bad checkpoint, another format, or `air`, which needs an Ascend host.
    """
    _check(out, file_format, batch)
    evaluation = Evaluation.of_checkpoint(checkpoint)
    probe = np.random.default_rng(_PROBE_SEED).integers(0, 256, (batch, 64, 128), np.uint8)
    expected = evaluation.embed(probe)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.mindir")
    try:
        with quiet_mindspore():
            ms.export(
                evaluation.embedder,
                Tensor(probe),
                file_name=str(temporary.with_suffix("")),
                file_format="MINDIR",
            )
            found = nn.GraphCell(ms.load(str(temporary)))(Tensor(probe))
        pairs = zip(expected, found, strict=True)
        difference = max(float(np.abs(want - got.asnumpy()).max()) for want, got in pairs)
        if not difference <= TOLERANCE:
            raise ExportDiffers(f"{out}: outputs differ by {difference:.1e}, above {TOLERANCE}; not kept")
        temporary.chmod(0o644)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return difference


def _check(out: Path, file_format: str, batch: int) -> None:
    if file_format == "air":
        raise InputError("format air needs an Ascend host with CANN; export mindir here, or run this there")
    if file_format != "mindir":
        raise InputError(f"format {file_format} is not known; it must be mindir, or air on an Ascend host")
    if out.suffix != ".mindir":
        raise InputError(f"{out} does not end in .mindir; MindSpore loads no other name")
    check_place(out)
    if batch < 1:
        raise InputError(f"batch is {batch}; it must be at least 1")
