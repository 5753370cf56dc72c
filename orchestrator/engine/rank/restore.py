"""The checkpoint from which the ranks resume: rank 0 chooses it, and every rank reads it from storage."""

import functools
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from orchestrator.engine.checkpoints import Encoded, newest_valid, read_checkpoint, refuse_lost
from orchestrator.engine.control.failures import FailureKind, RankFailed
from orchestrator.engine.state_format import State, StateFormat
from orchestrator.errors import CorruptData
from orchestrator.storage import Storage, StorageError
from orchestrator.storage.retry import retried
from orchestrator.telemetry.event import Event
from orchestrator.telemetry.events import CheckpointCorrupt

# A name that another host just wrote may be invisible here for a moment; a storage outage takes longer.
_RETRY_AFTER_S = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True, slots=True)
class Restored:
    """The checkpoint to resume from."""

    name: str
    step: int
    metrics: Mapping[str, float]
    state: State


def choose_and_read(
    storage: Storage,
    state_format: StateFormat,
    *,
    rank: int,
    avoid: Collection[str],
    saved: str | None,
    broadcast: Callable[[str | None], str],
    record: Callable[[Event], None],
    wait: Callable[[float], None] = time.sleep,
) -> Restored | None:
    """The newest valid checkpoint, the same on every rank; None if the run has saved none. All ranks must call it.

    avoid: names of checkpoints to skip. saved: name of the newest checkpoint that the run reported.

    Raises CheckpointsLost on rank 0 if the run saved checkpoints and none is valid. A rank that cannot read the chosen
    checkpoint raises RankFailed with its name. The controller then adds the name to `avoid` and restarts the group, so
    that all ranks resume from the checkpoint before it.
    """
    name, encoded = None, None
    if rank == 0:
        name, encoded, corrupt = newest_valid(storage, avoid, saved, wait)
        names = [error.name.removeprefix("checkpoint ") for error in corrupt]
        for corrupt_name, error in zip(names, corrupt, strict=True):
            record(CheckpointCorrupt(checkpoint=corrupt_name, detail=error.detail))
        if name is None:
            refuse_lost(storage, saved, names)
    name = broadcast(name or "")
    if not name:
        return None
    if encoded is None:
        encoded = _read(storage, name, rank, wait)
    try:
        state = state_format.decode(encoded)
    except CorruptData as error:
        raise RankFailed(FailureKind.CORRUPT_CHECKPOINT, str(error), 0, rank, checkpoint=name) from error
    return Restored(name, encoded.step, encoded.metrics, state)


def _read(storage: Storage, name: str, rank: int, wait: Callable[[float], None]) -> Encoded:
    read = functools.partial(read_checkpoint, storage, name)
    try:
        return retried(read, (StorageError, CorruptData), wait, _RETRY_AFTER_S)
    except (StorageError, CorruptData) as error:
        detail = f"rank {rank} could not read {name}: {error}"
        raise RankFailed(FailureKind.CORRUPT_CHECKPOINT, detail, 0, rank, checkpoint=name) from error
