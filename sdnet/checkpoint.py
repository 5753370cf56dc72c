"""Checkpoints on disk: MindSpore's format, published names, sums, and never half of one.

A checkpoint is a directory with `model.ckpt` (weights, in the names of published checkpoints),
`optimizer.ckpt` (Adam's parameters) and `state.json` (where training stands, and the sums of the
other two). It is written under a temporary name, synced, and renamed when whole.
"""

import hashlib
import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np

from sdnet.config import Recipe
from sdnet.errors import InputError
from sdnet.quiet import quiet_mindspore
from sdnet.weights import State

MODEL, OPTIMIZER, STATE = "model.ckpt", "optimizer.ckpt", "state.json"
PUBLISHED_PREFIX = {"features_opt": "model", "features_sar": "model", "embedding": "model",
                    "lower_opt": "model_L", "lower_sar": "model_L", "decoder": "model_D"}  # fmt: skip
# Published training code prefixes these names with its own wrappers (`optimizer.`, `network._backbone.`).
_PUBLISHED = re.compile(
    r"(?:(?:network|_backbone|optimizer(?:_[LD])?)\.)*model(?:_[LD])?\.([a-z]+(?:_[a-z]+)?\.\d+(?:\.[a-z_]+)+)"
)


class CorruptCheckpoint(InputError):
    """A checkpoint directory is not what was written: a sum is wrong, or a file is missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointState:
    """Where training stands.

    epoch: whole epochs done. step, samples: global steps done and samples seen in them.
    losses: sums over the steps of the current epoch, in the order of `train_step.LOSSES`.
    data: SHA-256 of train.npz and test.npz by name; empty in older checkpoints.
    metrics: what the caller knew of these weights, such as `fpr95`; may be empty.
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


def published_name(name: str) -> str:
    """Our parameter name as published checkpoints spell it."""
    return f"{PUBLISHED_PREFIX[name.split('.')[0]]}.{name}"


def write(directory: Path, model: State, optimizer: State, state: CheckpointState) -> None:
    """Write a checkpoint; afterwards `directory` is whole and on disk, or untouched.

    A checkpoint that is already there is replaced, unless it is good and holds the same.
    Raises OSError when storage refuses, or is not there: the folder above is not made, because
    that would hide the checkpoint below the mount point of a storage that is away.
    """
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        write_parameters(temporary / MODEL, {published_name(name): value for name, value in model.items()})
        write_parameters(temporary / OPTIMIZER, optimizer)
        files = {name: _sum(temporary / name) for name in (MODEL, OPTIMIZER)}
        _write_state(temporary / STATE, {**asdict(state), "files": files})
        _sync(temporary)
        _put(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_published(path: Path, model: State) -> None:
    """Write weights alone, as one file that the published code reads; it appears whole. Raises OSError."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.ckpt")
    try:
        write_parameters(temporary, {published_name(name): value for name, value in model.items()})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_parameters(path: Path, parameters: State) -> None:
    """Write one `.ckpt` file in MindSpore's format and sync it. Raises OSError."""
    entries = [{"name": name, "data": ms.Tensor(value)} for name, value in parameters.items()]
    with quiet_mindspore():
        ms.save_checkpoint(entries, str(path))
    path.chmod(0o644)  # MindSpore leaves it read-only, and a later copy or clean-up should not stumble
    _sync(path)


def verify(directory: Path) -> CheckpointState:
    """Check every file against its sum. Raises CorruptCheckpoint, which says what is wrong."""
    state, files = _read_state(directory)
    for name in (MODEL, OPTIMIZER):
        path = directory / name
        if not path.is_file():
            raise CorruptCheckpoint(f"{path} is missing; use an earlier checkpoint")
        found, expected = _sum(path), files.get(name)
        if found != expected:
            raise CorruptCheckpoint(
                f"{path} is not what was written ({found['size']} bytes, sum {found['sha256'][:12]}); "
                "use an earlier checkpoint"
            )
    return state


def read_state(directory: Path) -> CheckpointState:
    """Read where training stood; the other files are not looked at. Raises CorruptCheckpoint."""
    return _read_state(directory)[0]


def read_recipe(path: Path) -> Recipe:
    """The recipe that a checkpoint was trained with; that of a single `.ckpt` is the published one.

    It decides which network the weights belong to. Raises CorruptCheckpoint, or InputError when
    this version does not know a field or a value.
    """
    if not path.is_dir():
        return Recipe()
    fields = read_state(path).recipe
    unknown = sorted(fields.keys() - asdict(Recipe()).keys())
    if unknown:
        raise InputError(f"{path} was trained with {unknown[0]}, which this version does not know; update it")
    try:
        return Recipe(**fields)
    except InputError as error:
        raise InputError(f"{path} cannot be used: {error}") from None


def read_optimizer(directory: Path) -> State:
    """Adam's parameters of a checkpoint directory."""
    return read_parameters(directory / OPTIMIZER)


def read_model(path: Path, shapes: dict[str, tuple[int, ...]]) -> State:
    """Weights from a checkpoint directory or a single `.ckpt`, ours or a published one.

    shapes: of each parameter by our name; the file must hold every one of them.
    """
    if path.is_dir():
        verify(path)
        path = path / MODEL
    found: State = {}
    for published, value in read_parameters(path).items():
        match = _PUBLISHED.fullmatch(published)
        if match and match[1] in shapes:
            found[match[1]] = value
    for name, shape in shapes.items():
        if name not in found:
            raise InputError(f"{path} holds no {published_name(name)}; give a checkpoint of SDNet")
        if found[name].shape != shape or found[name].dtype != np.float32:
            raise InputError(
                f"{path}: {published_name(name)} is {found[name].dtype} {list(found[name].shape)}, "
                f"not float32 {list(shape)}; give a checkpoint of SDNet"
            )
    return {name: found[name] for name in shapes}


def read_parameters(path: Path) -> State:
    """Every tensor of a `.ckpt` by its name. Raises InputError for what is no whole one."""
    if not path.is_file():
        raise InputError(f"{path} is not there; give a checkpoint directory or a .ckpt file")
    if path.suffix != ".ckpt":
        raise InputError(f"{path} does not end in .ckpt; give a checkpoint directory or a .ckpt file")
    try:
        with quiet_mindspore():
            loaded = ms.load_checkpoint(str(path))
        return {name: parameter.asnumpy() for name, parameter in loaded.items()}
    except Exception as error:  # MindSpore raises whatever its parser meets
        raise InputError(f"{path} is not a whole MindSpore checkpoint; copy it again") from error


def _write_state(path: Path, content: dict[str, Any]) -> None:
    signed = {**content, "sha256": hashlib.sha256(_canonical(content)).hexdigest()}
    with path.open("w", encoding="utf-8") as file:
        json.dump(signed, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _read_state(directory: Path) -> tuple[CheckpointState, dict[str, Any]]:
    path = directory / STATE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        expected = content.pop("sha256")
        if hashlib.sha256(_canonical(content)).hexdigest() != expected:
            raise CorruptCheckpoint(f"{path} is not what was written; use an earlier checkpoint")
        files = content.pop("files")
        content["losses"] = tuple(content["losses"])
        return CheckpointState(**content), files
    except FileNotFoundError:
        raise CorruptCheckpoint(f"{path} is missing; give a checkpoint directory") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, CorruptCheckpoint):
            raise
        raise CorruptCheckpoint(f"{path} is not what was written; use an earlier checkpoint") from error


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def _sum(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def _put(temporary: Path, directory: Path) -> None:
    if directory.exists():
        if _same(temporary, directory):
            return
        old = directory.with_name(f".{directory.name}.{os.getpid()}.old")
        directory.rename(old)
        temporary.rename(directory)
        shutil.rmtree(old)
    else:
        temporary.rename(directory)
    _sync(directory.parent)


def _same(new: Path, existing: Path) -> bool:
    try:
        verify(existing)
    except CorruptCheckpoint:
        return False
    return _read_state(new) == _read_state(existing)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
