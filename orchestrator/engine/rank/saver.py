"""Saves checkpoints in the background of the step loop, at the optimal interval.

Only rank 0 saves: in a data-parallel group all ranks have the same state. The step loop only waits for the copy to
host memory; a thread writes the copy to storage. At most one save is in flight and one waits. A newer state replaces
the waiting one, so copies do not pile up in memory on slow storage.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.engine.checkpoints import FOLDER, Encoded, write_checkpoint
from orchestrator.engine.checkpoints.pruning import prune
from orchestrator.engine.rank.interval import between_failures_s, checkpoint_interval_s
from orchestrator.engine.state_format import State, StateFormat
from orchestrator.errors import OrchestratorError
from orchestrator.storage import Storage, StorageError, StorageMisused, takes_writes
from orchestrator.telemetry.event import Event
from orchestrator.telemetry.events import CheckpointFailed, CheckpointSaved

logger = logging.getLogger(__name__)

# Steps before the first save is considered: the first step of a process compiles, so its duration misleads.
_STEPS_TO_MEASURE = 3
# Pauses between attempts while storage is unavailable: half a minute in all.
_RETRY_AFTER_S = (1.0, 2.0, *(4.0,) * 7)


class CheckpointNotSaved(OrchestratorError):
    """Storage refused checkpoints for too long, or refused the last one of a group. Example: the disk is full."""

    def __init__(self, step: int, detail: str):
        super().__init__(step, detail)
        self.step, self.detail = step, detail

    def __str__(self) -> str:
        return f"the checkpoint of step {self.step} could not be written: {self.detail}"


class SaveTimes:
    """Decides when to save. every_s: seconds between saves; None is the optimum of Young and Daly.

    failures, trained_s: failures and seconds of training of the whole run so far.
    """

    def __init__(
        self,
        every_s: float | None,
        failures: int,
        trained_s: float,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._every_s, self._failures, self._trained_s = every_s, failures, trained_s
        self._clock = clock
        self._began: tuple[int, float] | None = None
        self._saved_at = self._step_at = 0.0
        self.stall_s = self.save_s = 0.0

    def due(self, step: int) -> bool:
        """Whether to save after `step` global steps: true if the interval would pass during the next step."""
        now = self._clock()
        if self._began is None:
            self._began, self._saved_at, self._step_at = (step, now), now, now
        step_s, self._step_at = now - self._step_at, now
        first_step, began = self._began
        if step - first_step < _STEPS_TO_MEASURE:
            return False
        return now - self._saved_at + step_s > self._interval_s(now - began)

    def saved(self) -> None:
        """Start the next interval, because a save has just been queued."""
        self._saved_at = self._clock()

    def _interval_s(self, trained_s: float) -> float:
        if self._every_s is not None:
            return self._every_s
        between_s = between_failures_s(self._failures, self._trained_s + trained_s)
        # On slow storage, leave time for a save to end before the next one begins.
        return max(checkpoint_interval_s(self.stall_s, between_s), 2 * self.save_s)


@dataclass(frozen=True, slots=True)
class _Save:
    state: State
    step: int
    metrics: Mapping[str, float]
    stall_s: float


class Saver:
    """Writes states as checkpoints, in its own thread.

    has_earlier: whether a valid checkpoint exists. If one does, training continues when storage refuses a save, until
    storage has refused every save for `storage_timeout_s`. Without one, the first refused save ends training.
    on_saved: called with the name of each new checkpoint. keep, best: see `prune`. check_owner: raises RunLost if
    another launch owns the run; called before a checkpoint becomes valid and before old ones are deleted.
    """

    def __init__(
        self,
        storage: Storage,
        state_format: StateFormat,
        *,
        keep: int,
        best: str | None,
        times: SaveTimes,
        record: Callable[[Event], None],
        on_saved: Callable[[str], None],
        has_earlier: bool,
        storage_timeout_s: float = 300.0,
        check_owner: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._storage, self._format, self._keep, self._best = storage, state_format, keep, best
        self._times, self._record, self._on_saved = times, record, on_saved
        self._has_earlier, self._check_owner, self._clock = has_earlier, check_owner, clock
        self._storage_timeout_s = storage_timeout_s
        self._refused_since: float | None = None
        # Why the newest state was dropped after all attempts.
        self._not_saved: CheckpointNotSaved | None = None
        self._waiting: _Save | None = None
        self._busy = self._closed = False
        self._error: Exception | None = None
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoint saver", daemon=True)
        self._thread.start()

    def due(self, step: int) -> bool:
        """Whether to save after `step` global steps. Raises the error of an earlier save."""
        self._raise_error()
        return self._times.due(step)

    def save(self, step: int, state: Callable[[], State], metrics: Mapping[str, float]) -> None:
        """Copy the state and queue it for the thread. Raises the error of an earlier save, or any error of `state`."""
        self._raise_error()
        began = self._clock()
        copied = state()
        stall_s = self._clock() - began
        self._times.stall_s = stall_s
        self._times.saved()
        with self._changed:
            self._waiting = _Save(copied, step, dict(metrics), stall_s)
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until the newest state is written. Raises the error of a save, or CheckpointNotSaved."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._busy and self._waiting is None or self._error is not None
            )
        self._raise_error()
        if self._not_saved is not None:
            raise self._not_saved

    def close(self) -> None:
        """Stop the thread. A waiting state is dropped, so call `flush` first."""
        with self._changed:
            self._closed = True
            self._waiting = None
            self._changed.notify_all()
        self._stop.set()
        self._thread.join()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._closed)
                if self._closed:
                    return
                save, self._waiting, self._busy = self._waiting, None, True
            assert save is not None
            try:
                self._write(save)
            except Exception as error:  # noqa: BLE001 - the step loop raises it
                self._error = error
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _write(self, save: _Save) -> None:
        """Write one checkpoint, then delete old ones."""
        began = self._clock()
        name = self._written(save)
        if name is None:
            return
        self._has_earlier = True
        self._refused_since = self._not_saved = None
        save_s = self._clock() - began
        self._times.save_s = save_s
        self._on_saved(name)
        stall_s = round(save.stall_s, 4)
        self._record(
            CheckpointSaved(step=save.step, checkpoint=name, stall_s=stall_s, save_s=round(save_s, 4))
        )
        self._prune()

    def _written(self, save: _Save) -> str | None:
        """Write the checkpoint and return its name; None if storage refused every attempt and training may continue.

        Raises CheckpointNotSaved if training must not continue without the checkpoint. Raises StorageMisused at once
        if no checkpoint exists and another attempt cannot succeed.
        """
        encoded: Encoded = self._format.encode(save.state, save.step, save.metrics)
        for wait_s in (*_RETRY_AFTER_S, None):
            try:
                return write_checkpoint(self._storage, encoded, self._check_owner)
            except StorageError as error:
                logger.warning("the checkpoint of step %s could not be written: %s", save.step, error)
                self._record(CheckpointFailed(step=save.step, detail=str(error)))
                # Storage works but this path is blocked, for example by a file with the folder's name: do not retry.
                hopeless = isinstance(error, StorageMisused) and takes_writes(self._storage, FOLDER)
                if hopeless and not self._has_earlier:
                    raise
                self._not_saved = CheckpointNotSaved(save.step, str(error))
                if self._is_away_for_too_long():
                    raise self._not_saved from error
                if hopeless or wait_s is None or self._stop.wait(wait_s):
                    break
        if not self._has_earlier and self._not_saved is not None:
            raise self._not_saved
        return None  # training continues; the next save tries again

    def _is_away_for_too_long(self) -> bool:
        now = self._clock()
        if self._refused_since is None:
            self._refused_since = now
        return now - self._refused_since >= self._storage_timeout_s

    def _prune(self) -> None:
        try:
            self._check_owner()
            prune(self._storage, self._keep, self._best)
        except StorageError as error:
            logger.warning("old checkpoints could not be removed: %s", error)  # the next save tries again
