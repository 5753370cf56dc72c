"""Saves a small checkpoint; run as a program, dies at every single point of a save.

usage: python -m tests.unit.engine.crashing FOLDER STEP KEEP. FOLDER/start holds a run with checkpoints. For
n = 1, 2, ... it is copied to FOLDER/<n>, where a forked process saves STEP, prunes, and dies at its n-th change of the
disk. The last copy is the one whose process finished.
"""

import io
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.engine.checkpoints import write_checkpoint
from orchestrator.engine.checkpoints.pruning import prune
from orchestrator.engine.state_format import NpzFormat
from orchestrator.storage import DirectoryStorage

# Audit events of CPython that come before a change of a directory; writes and syncs have none.
_CHANGES = {"os.rename", "os.mkdir", "os.rmdir", "os.remove"}


def save(root: Path, step: int) -> str:
    """Write the checkpoint of this step; its weights are the step. Returns its name."""
    encoded = NpzFormat().encode({"weight": np.full((2, 3), step, np.float32)}, step, {})
    return write_checkpoint(DirectoryStorage(root), encoded)


class DyingFile(io.FileIO):
    """A file that is written in two halves, with a point to die before each."""

    reached: Callable[[], None]

    def write(self, data: Any) -> int:
        content = bytes(data)
        half = len(content) // 2
        DyingFile.reached()
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
        if event in _CHANGES and str(arguments[0]).startswith(str(root)):
            reached()

    def fdopen(descriptor: int, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if mode == "wb":
            return DyingFile(descriptor, "wb")
        return original_fdopen(descriptor, mode, *arguments, **options)

    def fsync(descriptor: int) -> None:
        reached()
        original_fsync(descriptor)

    DyingFile.reached = staticmethod(reached)
    original_fdopen, original_fsync = os.fdopen, os.fsync
    os.fdopen, os.fsync = fdopen, fsync  # type: ignore[assignment]
    sys.addaudithook(watch)


def _save_and_die(root: Path, step: int, keep: int, point: int) -> bool:
    """Whether the forked process finished."""
    child = os.fork()
    if child == 0:
        die_at(point, root)
        save(root, step)
        prune(DirectoryStorage(root), keep)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


def main(folder: Path, step: int, keep: int) -> None:
    """Die at each point, one after another, until a save finishes."""
    point, finished = 0, False
    while not finished:
        point += 1
        root = folder / str(point)
        shutil.copytree(folder / "start", root)
        finished = _save_and_die(root, step, keep, point)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
