"""The checkpoints of a run on disk: which is the newest good one, and which may go.

A checkpoint is a directory `step_<step>` and counts only while its sums hold. A bad one is
renamed `*.corrupt`, so that nothing trusts it again and a person can still look at it.
"""

import logging
import re
import shutil
from pathlib import Path

from orchestrator.events import EventLog
from orchestrator.run_directory import RunDirectory
from sdnet.checkpoint import CheckpointState, CorruptCheckpoint, read_state, verify

logger = logging.getLogger(__name__)

_NAME = re.compile(r"step_(\d{8,})")


def checkpoint_name(step: int) -> str:
    """Directory name of the checkpoint after `step` global steps; names sort as steps do."""
    return f"step_{step:08d}"


def checkpoint_directories(root: Path) -> list[Path]:
    """The checkpoint directories of a run, oldest first; whether they are good is not looked at."""
    if not root.is_dir():
        return []
    named = [path for path in root.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(named, key=lambda path: int(path.name.removeprefix("step_")))


def newest_good(root: Path) -> tuple[Path | None, list[tuple[Path, str]]]:
    """The newest checkpoint whose sums hold, and the bad ones met on the way with what is wrong.

    Each bad one is renamed `<name>.corrupt`. None when no good one is left.
    """
    corrupt: list[tuple[Path, str]] = []
    for directory in reversed(checkpoint_directories(root)):
        try:
            verify(directory)
        except CorruptCheckpoint as error:
            corrupt.append((_set_aside(directory), str(error)))
            continue
        return directory, corrupt
    return None, corrupt


def checkpoint_to_resume(run: RunDirectory, events: EventLog) -> Path | None:
    """The newest checkpoint whose sums hold; events.jsonl tells of those that were set aside on the way."""
    checkpoint, corrupt = newest_good(run.checkpoints)
    for path, reason in corrupt:
        events.emit("checkpoint_corrupt", checkpoint=path.name, detail=reason)
    return checkpoint


def prune(root: Path, keep: int) -> list[Path]:
    """Delete all but the `keep` newest checkpoints and the best by FPR95; returns what went."""
    directories = checkpoint_directories(root)
    kept = set(directories[-keep:])
    best = _best(directories)
    if best is not None:
        kept.add(best)
    gone = [directory for directory in directories if directory not in kept]
    for directory in gone:
        # Renamed first: a half-deleted directory must not look like a checkpoint.
        doomed = directory.rename(directory.with_name(f".{directory.name}.deleted"))
        shutil.rmtree(doomed)
    return gone


def remove_leftovers(root: Path) -> None:
    """Delete what a killed writer left half done; call only while nobody writes."""
    if root.is_dir():
        for path in root.iterdir():
            if path.name.startswith(".step_"):
                shutil.rmtree(path)


def _best(directories: list[Path]) -> Path | None:
    rated = [(rate, directory) for directory in directories if (rate := _fpr95(directory)) is not None]
    return min(rated, key=lambda item: item[0])[1] if rated else None


def _fpr95(directory: Path) -> float | None:
    try:
        state: CheckpointState = read_state(directory)
    except CorruptCheckpoint:
        return None  # it is not good, so it is not the best; newest_good() sets it aside
    return state.fpr95


def _set_aside(directory: Path) -> Path:
    target = directory.with_name(f"{directory.name}.corrupt")
    number = 1
    while target.exists():
        number += 1
        target = directory.with_name(f"{directory.name}.{number}.corrupt")
    logger.warning("checkpoint %s is corrupt; set aside as %s", directory, target.name)
    return directory.rename(target)
