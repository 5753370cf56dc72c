"""Checkpoints: MindSpore's file format with checksums. A partly written one is never valid.

A checkpoint is a directory with `model.ckpt` (weights, in the names of published checkpoints), `optimizer.ckpt`
(Adam's parameters) and `state.json` (the progress of training, and the checksums of the other two). A training
group writes the same three files, so each can resume the other's checkpoints.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sdnet.config import Recipe
from sdnet.errors import InputError, NonFiniteWeights
from sdnet.files import is_permanent, open_regular, read_json, remove, whole_file
from sdnet.parameters.newest import STATE, newest_anywhere_in
from sdnet.parameters.parameter_file import parse_parameters, read_parameters, serialize
from sdnet.parameters.published import (
    LoadedModel,
    digest,
    model_of,
    own_name,
    published_name,
    verify_checksum,
)
from sdnet.parameters.weights import State

MODEL, OPTIMIZER = "model.ckpt", "optimizer.ckpt"


class CorruptCheckpoint(InputError):
    """A checkpoint directory is not what was written: a checksum is wrong, or a file is missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointState:
    """The progress of training.

    epoch: whole epochs done.
    step, samples: global steps done and samples seen in them.
    losses: sums over the steps of the current epoch, in the order of `train_step.LOSSES`.
    data: SHA-256 of train.npz and test.npz by name; empty in older checkpoints.
    metrics: measured with these weights, such as `fpr95`; may be empty.
    """

    epoch: int
    step: int
    samples: int
    seed: int
    slices: int
    world_size: int
    num_samples: int
    recipe: dict[str, Any]
    losses: tuple[float, ...]
    metrics: dict[str, float] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)

    @property
    def fpr95(self) -> float | None:
        """The weights' FPR95, if it was measured."""
        return self.metrics.get("fpr95")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A copy of the whole training state in host memory."""

    model: State
    optimizer: State
    state: CheckpointState

    def files(self) -> dict[str, bytes]:
        """The files except `state.json`, by name. Raises NonFiniteWeights: no run could resume from them."""
        if not all(np.isfinite(value).all() for value in (*self.model.values(), *self.optimizer.values())):
            raise NonFiniteWeights(self.state.step)
        model = {published_name(name): value for name, value in self.model.items()}
        return {MODEL: serialize(model), OPTIMIZER: serialize(self.optimizer)}

    def fields(self) -> dict[str, Any]:
        """The content of `state.json` without the checksums."""
        return {**asdict(self.state), "weights_sha256": digest(self.model)}

    def write(self, directory: Path) -> Path:
        """Write a checkpoint and return its directory, which is `directory` unless that name is taken.

        Each file is written atomically, `state.json` last: without it there is no checkpoint. A valid
        checkpoint of the same content is kept. Anything else with this name stays, because another process may
        read it, and `<name>.2`, `<name>.3` are tried. A folder without `state.json`, which a killed process
        left, is completed.

        Raises NonFiniteWeights, OSError. The parent folder is not created: if the storage is not mounted, a
        save must fail instead of writing below the mount point.
        """
        files = self.files()
        checksums = {name: _size_and_sha256(content) for name, content in files.items()}
        content = {**self.fields(), "files": checksums}
        place, is_written = _place(directory, _signature(content))
        if is_written:
            return place
        try:
            for name, data in files.items():
                _write(place / name, data)
            _sync(place)
            _write_state(place / STATE, content)
            _sync(place)
            _sync(place.parent)
        except OSError:
            if not os.path.lexists(place / STATE):
                remove(place, ignore_errors=True)
            raise
        return place

    @classmethod
    def parse(cls, files: Mapping[str, bytes], fields: Mapping[str, object], place: Path) -> "Snapshot":
        """Rebuild the snapshot from its files. place: path of the checkpoint, for messages.

        Raises InputError for files of another program.
        """
        try:
            model = parse_parameters(files[MODEL], place / MODEL).parameters
            optimizer = parse_parameters(files[OPTIMIZER], place / OPTIMIZER).parameters
            own_names = {own_name(name): value for name, value in model.items()}
            return cls(own_names, optimizer, _state_of(fields))
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{place} is no checkpoint of SDNet ({error}); use another one") from None


def read(directory: Path) -> Snapshot:
    """Read a checkpoint and compare every file with its checksum. Raises CorruptCheckpoint, OSError."""
    state, origin, files = _verified(directory)
    return Snapshot.parse(files, {**asdict(state), "weights_sha256": origin.weights_sha256}, directory)


def verify(directory: Path) -> CheckpointState:
    """Check every file against its checksum. Raises CorruptCheckpoint, which says what is wrong.

    Raises OSError for a storage failure that may pass, such as EIO.
    """
    return _verified(directory)[0]


def read_state(directory: Path) -> CheckpointState:
    """Read the progress of training; the other files are not checked. Raises CorruptCheckpoint, OSError."""
    return _read_state(directory)[0]


def read_origin(directory: Path) -> dict[str, str | None]:
    """Read `checkpoint_sha256` and `weights_sha256` from the checkpoint's `state.json`.

    A value is None if an older version of this package wrote none. Raises CorruptCheckpoint, OSError.
    """
    origin = _read_state(directory)[1]
    file = origin.files.get(MODEL, {}).get("sha256")
    return {"checkpoint_sha256": file, "weights_sha256": origin.weights_sha256}


def read_recipe(path: Path) -> Recipe:
    """The recipe that a checkpoint was trained with; for a single `.ckpt` file, the published one.

    The recipe defines the network of the weights.
    Raises CorruptCheckpoint, or InputError when this version does not know a field or a value.
    """
    if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for a name that is too long
        return Recipe()
    fields = read_state(path).recipe
    unknown = sorted(fields.keys() - asdict(Recipe()).keys())
    if unknown:
        raise InputError(f"{path} was trained with {unknown[0]}, which this version does not know; update it")
    try:
        return Recipe(**fields)
    except (InputError, TypeError) as error:
        raise InputError(f"{path} cannot be used: {error}") from None


def load_model(path: Path, shapes: dict[str, tuple[int, ...]]) -> LoadedModel:
    """Load weights and their origin from a checkpoint directory or a single `.ckpt`, ours or a published one.

    shapes: the shape of each parameter by our name; the file must contain each once, with finite values and
    no blank kernel. float16, bfloat16 and float64 are converted. A directory is verified by its `state.json`, a
    single file by a `.sha256` file next to it, if there is one. Raises InputError.
    """
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for a name that is too long
        verify(path)
        return model_of(read_parameters(path / MODEL), shapes, checked=True)
    given = read_parameters(path)
    return model_of(given, shapes, checked=verify_checksum(path, given.sha256))


def read_model(path: Path, shapes: dict[str, tuple[int, ...]]) -> State:
    """The weights alone of `load_model`."""
    return load_model(path, shapes).state


@dataclass(frozen=True, slots=True)
class _Origin:
    """The checksums in a state.json. files: size and SHA-256 by name. weights_sha256: None from older versions."""

    files: dict[str, dict[str, Any]]
    weights_sha256: str | None


def _verified(directory: Path) -> tuple[CheckpointState, _Origin, dict[str, bytes]]:
    state, origin = _read_state(directory)
    files = {}
    for name in (MODEL, OPTIMIZER):
        path = directory / name
        try:
            with open_regular(path) as file:
                content = file.read()
        except FileNotFoundError:
            raise CorruptCheckpoint(f"{path} is missing; use an earlier checkpoint") from None
        except OSError as error:
            raise _unreadable(path, error) from None
        found = _size_and_sha256(content)
        if found != origin.files.get(name):
            raise CorruptCheckpoint(
                f"{path} is not what was written ({found['size']} bytes, SHA-256 {found['sha256'][:12]}...); "
                "use an earlier checkpoint"
            )
        files[name] = content
    return state, origin, files


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as file:
        file.write(content)


def _write_state(path: Path, content: dict[str, object]) -> None:
    _write(path, json.dumps({**content, "sha256": _signature(content)}, indent=2).encode())


def _read_state(directory: Path) -> tuple[CheckpointState, _Origin]:
    path = directory / STATE
    try:
        content = read_json(path)
        expected = content.pop("sha256")
        if _signature(content) != expected:
            raise CorruptCheckpoint(f"{path} is not what was written; use an earlier checkpoint")
        origin = _Origin(dict(content.pop("files")), content.get("weights_sha256"))
        return _state_of(content), origin
    except FileNotFoundError:
        inside = newest_anywhere_in(directory)
        if inside is None:
            raise CorruptCheckpoint(f"{path.absolute()} is missing; give a checkpoint directory") from None
        raise CorruptCheckpoint(
            f"{directory.absolute()} is no checkpoint, but contains some; give one of them, as {inside.absolute()}"
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, CorruptCheckpoint):
            raise
        raise CorruptCheckpoint(f"{path} is not what was written; use an earlier checkpoint") from error


def _state_of(fields: Mapping[str, Any]) -> CheckpointState:
    known = {name: value for name, value in fields.items() if name != "weights_sha256"}
    return CheckpointState(**{**known, "recipe": dict(known["recipe"]), "losses": tuple(known["losses"])})


def _unreadable(path: Path, error: OSError) -> Exception:
    """A file that stays unreadable counts as corrupt; any other storage failure may pass and is kept."""
    if is_permanent(error) or not path.is_file():
        return CorruptCheckpoint(f"{path} cannot be read ({error.strerror}); use an earlier checkpoint")
    return error


def _signature(content: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _size_and_sha256(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def _place(directory: Path, sha256: str) -> tuple[Path, bool]:
    """The directory to write to, and whether a valid checkpoint of this content is there already."""
    for number in itertools.count(1):
        place = directory if number == 1 else directory.with_name(f"{directory.name}.{number}")
        try:
            place.mkdir()
        except FileExistsError:
            if os.path.lexists(place / STATE):
                if _is_valid(place, sha256):
                    return place, True
                continue
            if not place.is_dir():
                continue
        return place, False
    raise AssertionError  # the numbers have no end


def _is_valid(directory: Path, sha256: str) -> bool:
    try:
        verify(directory)
        return bool(read_json(directory / STATE)["sha256"] == sha256)
    except CorruptCheckpoint:
        return False


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
