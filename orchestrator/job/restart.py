"""`launch --restart`: begin a run again. What earlier launches left is moved aside, not deleted."""

import logging
from contextlib import suppress
from pathlib import Path

from orchestrator.errors import CorruptData
from orchestrator.job.data.copies import data_errors
from orchestrator.job.run_directory import RunDirectory
from orchestrator.storage import StorageError, owned
from orchestrator.storage.protocol import remedy_if_immutable
from orchestrator.telemetry.events import RunRestarted
from orchestrator.telemetry.record import EventWriter
from orchestrator.telemetry.state import RunState, read_state, write_state
from sdnet.errors import InputError

logger = logging.getLogger(__name__)

# Patches and compiled graphs are kept: their fingerprints and checksums are verified before use. Leases are kept,
# because a launch that lost the run long ago must still see that another one took it.
_STAYS = frozenset({"lease", "data", "compiled"})
_ASIDE = "before_restart."


def begin_again(run: RunDirectory) -> Path | None:
    """Move what earlier launches left into `<run>/before_restart.<n>/`; returns it, or None for a new run.

    The new state keeps the generation and its ranks: they may still run when their launch was killed, and must be
    ended before the next group starts. Raises InputError when something cannot be moved, or while a launch works here.
    """
    run.make_root()
    with owned(run.storage) as owning:
        with data_errors(run.checkpoints.name):
            run.refuse_training()
        left = sorted(
            path for path in run.root.iterdir()
            if path.name not in _STAYS and not path.name.startswith(_ASIDE)
        )  # fmt: skip
        if not left:
            return None
        lease = owning.lease.number
        before = _state_before(run, lease)
        aside = _next_folder(run.root)
        _move(left, aside)
        write_state(run.storage, RunState(lease=lease, generation=before.generation, ranks=before.ranks))
        with EventWriter(run.storage, lease=lease) as events:
            events.record(RunRestarted(moved_to=aside.name))
    return aside


def _move(left: list[Path], aside: Path) -> None:
    """Move all of these into the new folder, or none. Raises InputError."""
    moved: list[Path] = []
    try:
        aside.mkdir()
        for path in left:
            path.rename(aside / path.name)
            moved.append(path)
    except OSError as error:
        with suppress(OSError):  # what cannot go back stays in `aside`, which the message names
            for path in moved:
                (aside / path.name).rename(path)
            aside.rmdir()
        raise InputError(
            f"{error.filename} cannot be moved to {aside} ({error.strerror}); move it away yourself, "
            f"or give the job another `name`{remedy_if_immutable(error)}"
        ) from None


def _state_before(run: RunDirectory, lease: int) -> RunState:
    try:
        return read_state(run.storage, lease)
    except (CorruptData, StorageError) as error:
        logger.warning("%s; end ranks of an earlier launch that still run yourself", error)
        return RunState()


def _next_folder(root: Path) -> Path:
    taken = {path.name for path in root.glob(f"{_ASIDE}*")}
    number = next(number for number in range(1, len(taken) + 2) if f"{_ASIDE}{number}" not in taken)
    return root / f"{_ASIDE}{number}"
