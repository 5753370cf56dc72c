"""Saves small checkpoints; run as a program, dies at every single point of a save.

usage: python -m tests.unit.saving FOLDER STEP KEEP. FOLDER/start holds checkpoints. For n = 1, 2, ...
it is copied to FOLDER/<n>, where a forked process saves STEP, prunes, and dies at its n-th change of
the disk; the last copy is the one whose process came to its end.
"""

import builtins
import io
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.training.checkpoints import checkpoint_name, prune
from sdnet import checkpoint
from sdnet.checkpoint import CheckpointState

# Audit events of CPython that come before a change of a directory; writes and syncs have none.
_CHANGES = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "os.truncate"}


def save(root: Path, step: int, fpr95: float | None = None, data: dict[str, str] | None = None) -> Path:
    """Write the checkpoint of this step; its weights are the step."""
    state = CheckpointState(
        epoch=0, step=step, samples=step, seed=0, slices=1, world_size=1, num_samples=9, recipe={},
        losses=(0.0,), metrics={} if fpr95 is None else {"fpr95": fpr95}, data=data or {},
    )  # fmt: skip
    directory = root / checkpoint_name(step)
    weights = {"embedding.1.weight": np.full((2, 3), step, np.float32)}
    checkpoint.write(directory, weights, {"global_step": np.array([step], np.float32)}, state)
    return directory


class DyingFile(io.FileIO):
    """A file that is written in two halves, with a point to die in between."""

    reached: Callable[[], None]

    def write(self, data: Any) -> int:
        content = bytes(data)
        half = len(content) // 2
        super().write(content[:half])
        DyingFile.reached()
        super().write(content[half:])
        return len(content)


def die_at(point: int, root: Path) -> None:
    """End this process at its `point`-th change below `root`, as a crash does: nothing is cleaned up."""
    count = 0

    def reached() -> None:
        nonlocal count
        count += 1
        if count == point:
            os._exit(1)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        # Deleting a tree names its files by descriptor: nothing else here does.
        if event in _CHANGES and (str(arguments[0]).startswith(str(root)) or -1 not in arguments):
            reached()

    def opened(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if mode[0] not in "wa" or not str(file).startswith(str(root)):
            return original_open(file, mode, *arguments, **options)
        reached()
        raw = DyingFile(os.fspath(file), mode[0])
        return raw if "b" in mode else io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8")

    def fsync(descriptor: int) -> None:
        reached()
        original_fsync(descriptor)

    DyingFile.reached = staticmethod(reached)
    original_open, original_fsync = builtins.open, os.fsync
    builtins.open = io.open = opened
    os.fsync = fsync
    sys.addaudithook(watch)


def _save_and_die(root: Path, step: int, keep: int, point: int) -> bool:
    """Whether the forked process came to its end."""
    child = os.fork()
    if child == 0:
        die_at(point, root)
        save(root, step)
        prune(root, keep)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


def main(folder: Path, step: int, keep: int) -> None:
    """Die at each point, one after another, until a save comes to its end."""
    point, finished = 0, False
    while not finished:
        point += 1
        root = folder / str(point)
        shutil.copytree(folder / "start", root)
        finished = _save_and_die(root, step, keep, point)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
