"""Saving behind the step loop, as often as is worth it."""

import logging
import time
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import ray.train
import ray.train.collective
from ray.train import Checkpoint, CheckpointUploadMode

from orchestrator.errors import OrchestratorError
from orchestrator.events import EventLog
from orchestrator.recovery.interval import (
    between_failures_s,
    checkpoint_interval_s,
    failures_and_training,
)
from orchestrator.run_directory import RunDirectory
from orchestrator.training.checkpoints import checkpoint_name, prune
from sdnet.files import is_permanent
from sdnet.trainer import Snapshot, Trainer

logger = logging.getLogger(__name__)

# Steps to watch before the first interval is laid out; the first one of a process compiles.
_STEPS_TO_MEASURE = 3
# Waits between tries to write to storage that is away: half a minute in all.
_RETRY_AFTER_S = (1.0, 2.0, *(4.0,) * 7)


class CheckpointNotSaved(OrchestratorError):
    """Storage refused a checkpoint and there is no earlier one. Example: the disk is full."""

    def __init__(self, path: str, detail: str):
        super().__init__(path, detail)
        self.path, self.detail = path, detail

    def __str__(self) -> str:
        return f"checkpoint {self.path} could not be written ({self.detail}); free or mount the storage"


class Saver:
    """Decides when to save and saves: every rank has one, rank 0's writes.

    The loop stands still only for the copy to host memory and for Ray Train's agreement on
    the name; Ray Train's upload thread writes the files. Ranks must save at the same step,
    so rank 0 lays out the next one and tells the others while they meet anyway.
    """

    def __init__(self, run: RunDirectory, *, keep: int, every_s: float | None, rank: int):
        self._run, self._keep, self._every_s, self._rank = run, keep, every_s, rank
        self._events = EventLog(run.events)
        self._began: tuple[int, float] | None = None
        self._next: int | None = None
        self._stall_s = 0.0
        self._save_s = 0.0
        self._last_good: Path | None = None
        self._failures, self._trained_s = failures_and_training(self._events.read() if rank == 0 else [])

    def resumed_from(self, checkpoint: Path) -> None:
        """Tell of a good checkpoint that was there before: with it, training outlives a save that fails."""
        self._last_good = checkpoint

    def due(self, step: int) -> bool:
        """Whether to save after `step` global steps; every rank gets the same answer."""
        if self._began is None:
            self._began = (step, time.monotonic())
        if self._next is None and step == self._began[0] + _STEPS_TO_MEASURE:
            self._lay_out_next(step, since=self._began[0])
        return self._next is not None and step >= self._next

    def save(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Hand a copy of the state to the writer; every rank calls this at the same step."""
        began = time.monotonic()
        step = trainer.progress.step
        stall: Future[float] = Future()
        checkpoint = writer = None
        if self._rank == 0:
            checkpoint = Checkpoint(str(self._run.checkpoints / checkpoint_name(step)))
            writer = partial(self._write, trainer.snapshot(metrics), step, stall)
        ray.train.report(
            {"step": step, **metrics},
            checkpoint=checkpoint,
            checkpoint_dir_name=checkpoint_name(step),
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=writer,
            delete_local_checkpoint_after_upload=False,  # it is written where it stays
        )
        self._stall_s = time.monotonic() - began
        stall.set_result(self._stall_s)
        self._lay_out_next(step, since=step)

    def _lay_out_next(self, step: int, since: int) -> None:
        """Agree on the step of the next save: at most an interval of rank 0's clock after step `since`."""
        plan = None
        if self._rank == 0 and self._began is not None:
            first_step, first_time = self._began
            trained_s = time.monotonic() - first_time
            step_s = max(trained_s / max(step - first_step, 1), 1e-6)
            plan = max(step + 1, since + int(self._interval_s(trained_s) / step_s))
        self._next = ray.train.collective.broadcast_from_rank_zero(plan)

    def _interval_s(self, trained_s: float) -> float:
        """Seconds to the next save, this process having trained for `trained_s`."""
        if self._every_s is not None:
            return self._every_s
        between_s = between_failures_s(self._failures, self._trained_s + trained_s)
        # A save that takes long must be over before the next one begins.
        return max(checkpoint_interval_s(self._stall_s, between_s), 2 * self._save_s)

    def _write(
        self, snapshot: Snapshot, step: int, stall: "Future[float]", checkpoint: Checkpoint, name: str
    ) -> Checkpoint:
        """In the upload thread: write the files, drop old ones, tell; storage may be away for a while."""
        began = time.monotonic()
        target = Path(checkpoint.path)
        for wait_s in (*_RETRY_AFTER_S, None):
            try:
                snapshot.write(target)
                prune(target.parent, self._keep)
                break
            except OSError as error:
                self._tell_failed(step, error)
                # Where storage is healthy, something else lies in the way, and waiting does not move it.
                if wait_s is None or (is_permanent(error) and self._run.takes_writes()):
                    return self._without_this_one(target, error)
                time.sleep(wait_s)
        self._last_good = target
        self._save_s = time.monotonic() - began
        self._events.emit(
            "checkpoint_saved", step=step, checkpoint=name,
            stall_s=round(stall.result(), 4), save_s=round(self._save_s, 4),
        )  # fmt: skip
        return checkpoint

    def _tell_failed(self, step: int, error: OSError) -> None:
        logger.warning("checkpoint at step %s could not be written: %s", step, error)
        self._events.emit("checkpoint_failed", step=step, detail=str(error))

    def _without_this_one(self, target: Path, error: OSError) -> Checkpoint:
        """Training goes on from memory while an earlier checkpoint is good; the next save tries again."""
        if self._last_good is None:
            raise CheckpointNotSaved(str(target), str(error)) from error
        return Checkpoint(str(self._last_good))
