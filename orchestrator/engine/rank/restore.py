"""Which checkpoint the ranks resume from: rank 0 chooses, every rank reads it itself."""

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

# A name that another host just wrote may be missing here for a moment; storage may be away for longer.
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
    """The newest valid checkpoint, the same on every rank; None for a run that has saved none.

    saved: the newest that the run is known to have saved. All ranks must call it.

    Raises CheckpointsLost on rank 0 when the run saved checkpoints and none is valid. A rank that cannot read what
    rank 0 chose raises RankFailed with its name. The controller then avoids that checkpoint, and all ranks resume from
    the one before it.
    """
    name, encoded = None, None
    if rank == 0:
        name, encoded, corrupt = newest_valid(storage, avoid, saved, wait)
        for error in corrupt:
            record(CheckpointCorrupt(checkpoint=error.name.removeprefix("checkpoint "), detail=error.detail))
        if name is None:
            refuse_lost(storage, saved)
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
