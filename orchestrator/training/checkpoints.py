"""The checkpoints of a run on disk: which is the newest good one, and which may go.

A checkpoint is a directory `step_<step>` and counts only while its checksums match. A bad one is
renamed `*.corrupt`, so that nothing trusts it again and a person can still look at it. A run that
saved checkpoints and has no good one left is not begun again unless its user says so.
"""

import logging
import re
from pathlib import Path

from orchestrator.events import EventLog
from orchestrator.run_directory import RunDirectory
from sdnet.checkpoint import CheckpointState, CorruptCheckpoint, read_state, verify
from sdnet.errors import InputError
from sdnet.files import remove

logger = logging.getLogger(__name__)

_NAME = re.compile(r"step_(\d{8,})")
_NAMED = 3  # corrupt checkpoints that a message names


class CheckpointsLost(InputError):
    """A run saved checkpoints and has no good one any more. Example: somebody emptied the folder."""

    def __init__(self, folder: str, saved: int, last: str, corrupt: tuple[str, ...]):
        super().__init__(folder, saved, last, corrupt)
        self.folder, self.saved, self.last, self.corrupt = folder, saved, last, corrupt

    def __str__(self) -> str:
        named = ", ".join(self.corrupt[:_NAMED]) + (", ..." if len(self.corrupt) > _NAMED else "")
        corrupt = f"{named} are corrupt" if len(self.corrupt) > 1 else f"{named} is corrupt"
        return (
            f"{self.folder} has no good checkpoint, although the run saved {self.saved or len(self.corrupt)}"
            f"{f', the last one {self.last}' if self.last else ''}"
            f" ({corrupt if self.corrupt else 'all are gone'}); put one back, or launch with --restart "
            "to train from step 1"
        )


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
    """The newest checkpoint whose checksums match, and the bad ones met on the way with what is wrong.

    Each bad one is renamed `<name>.corrupt`. None when no good one is left. Raises OSError.
    """
    corrupt: list[tuple[Path, str]] = []
    for directory in reversed(checkpoint_directories(root)):
        try:
            step = verify(directory).step
            if directory.name != checkpoint_name(step):
                raise CorruptCheckpoint(f"{directory} holds step {step}; use an earlier checkpoint")
        except CorruptCheckpoint as error:
            # A rank of a launch that was killed may still prune while this one looks.
            if directory.exists():
                corrupt.append((_set_aside(directory), str(error)))
            continue
        return directory, corrupt
    return None, corrupt


def checkpoint_to_resume(run: RunDirectory, events: EventLog) -> Path | None:
    """The newest checkpoint whose checksums match, or None for a run that never saved one.

    events.jsonl names those that were set aside on the way. Raises CheckpointsLost.
    """
    checkpoint, corrupt = newest_good(run.checkpoints)
    for path, reason in corrupt:
        events.emit("checkpoint_corrupt", checkpoint=path.name, detail=reason)
    if checkpoint is None:
        _refuse_lost(run, events)
    return checkpoint


def _refuse_lost(run: RunDirectory, events: EventLog) -> None:
    saved = [event.get("checkpoint", "") for event in events.read() if event["event"] == "checkpoint_saved"]
    corrupt = tuple(sorted(path.name for path in run.checkpoints.glob("step_*.corrupt")))
    if saved or corrupt:
        raise CheckpointsLost(str(run.checkpoints), len(set(saved)), saved[-1] if saved else "", corrupt)


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
        remove(doomed)
    return gone


def remove_leftovers(root: Path) -> None:
    """Delete what a killed writer left half done; call only while nobody writes."""
    if root.is_dir():
        for path in root.iterdir():
            if path.name.startswith(".step_"):
                remove(path)


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
