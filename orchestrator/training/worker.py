"""The loop of one rank: step, log, evaluate, save; every rank of a group runs this."""

import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import ray.train.collective

from orchestrator.events import EventLog
from orchestrator.run_directory import RunDirectory
from orchestrator.training.checkpoints import checkpoint_to_resume
from orchestrator.training.compile_cache import CompileCache, cache_key
from orchestrator.training.drain import DrainNotice, LaunchEnds
from orchestrator.training.pulse import beat
from orchestrator.training.saver import Saver
from sdnet.config import Recipe
from sdnet.data.store import open_patches, open_training_patches, refuse_other_sample
from sdnet.messages import accuracy_line, epoch_line
from sdnet.metrics import accuracy, fpr95
from sdnet.trainer import Trainer

logger = logging.getLogger(__name__)

_PROGRESS_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class TrainJob:
    """What a rank must know; travels from the launcher to every worker.

    compile_cache: where compiled graphs are kept for the next generation; None compiles each time.
    data: SHA-256 of train.npz and test.npz by name, which each checkpoint keeps. data_sample: see
    `sample_checksum`; a rank that sees other data refuses them.
    """

    run: RunDirectory
    recipe: Recipe
    slices: int
    every_s: float | None
    keep: int
    evaluate_every: int
    evaluate_batch: int
    compile_cache: Path | None = None
    data: dict[str, str] = field(default_factory=dict)
    data_sample: str = ""


def train_rank(job: TrainJob) -> dict[str, Any]:
    """Train this rank to the end of the recipe, or of the launch; returns the same on every rank."""
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    _write_output_to(job.run.logs / f"rank_{rank}.log")
    return RankLoop(job, rank, world_size).run()


class RankLoop:
    """The state of the loop of one rank."""

    def __init__(self, job: TrainJob, rank: int, world_size: int):
        self.job, self.rank = job, rank
        self.events = EventLog(job.run.events)
        self.cache = _compile_cache(job, rank, world_size)
        self.warm = self.cache is not None and self.cache.open()
        train, self.test = open_training_patches(job.run.train_npz), open_patches(job.run.test_npz)
        refuse_other_sample(job.data_sample, train, self.test)
        self.trainer = Trainer(
            job.recipe,
            train,
            rank=rank,
            world_size=world_size,
            slices=job.slices,
            data=job.data,
        )
        self.saver = Saver(job.run, keep=job.keep, every_s=job.every_s, rank=rank)
        self.drain = DrainNotice(rank)
        self.rates: dict[str, float] = {}
        self.started = self.evaluated = False

    def run(self) -> dict[str, Any]:
        beat("compiling", 0)
        self._resume()
        trainer = self.trainer
        try:
            while trainer.progress.step < trainer.total_steps:
                self._train_epoch()
        except LaunchEnds as end:
            logger.info("%s", end)
        except Exception as error:
            # A failure that comes back at the same step is a bug; only this rank knows the step for sure.
            error.__dict__.setdefault("step", trainer.progress.step)
            raise
        beat("finished", trainer.progress.step)
        return {**self.rates, "epochs": trainer.progress.epoch, "steps": trainer.progress.step}

    def _resume(self) -> None:
        """Go on from the newest good checkpoint; rank 0 chooses, so that all ranks agree."""
        name = None
        if self.rank == 0:
            newest = checkpoint_to_resume(self.job.run, self.events)
            name = newest.name if newest else ""
        name = ray.train.collective.broadcast_from_rank_zero(name)
        if name:
            checkpoint = self.job.run.checkpoints / name
            state = self.trainer.restore(checkpoint)
            self.saver.resumed_from(checkpoint)
            self.rates = dict(state.metrics)
            logger.info("resumed from %s at step %s", name, state.step)
            if self.rank == 0:
                self.events.emit("resumed", checkpoint=name, step=state.step)

    def _step(self) -> None:
        """One global step; the first one of a process compiles, and is waited for and told."""
        trainer = self.trainer
        if self.started:
            trainer.step()
        else:
            began = time.monotonic()
            trainer.step()
            if self.rank == 0:
                self.events.emit("compiled", seconds=round(time.monotonic() - began, 3), cached=self.warm)
            trainer.wait()
            self._keep_graphs()
            self.started = True
            if self.rank == 0:
                self.events.emit("first_step", step=trainer.progress.step)
        beat("stepping", trainer.progress.step, trainer.work_s)

    def _keep_graphs(self) -> None:
        if self.cache is not None:
            self.cache.seal()

    def _train_epoch(self) -> None:
        """The rest of the current epoch, its losses, its evaluation, and the saves that are due."""
        trainer = self.trainer
        epoch, began = trainer.progress.epoch, time.perf_counter()
        told = time.monotonic()
        steps = 0
        while trainer.progress.epoch == epoch:
            self._step()
            steps += 1
            step = trainer.progress.step
            if self.rank == 0 and time.monotonic() - told > _PROGRESS_EVERY_S:
                told = time.monotonic()
                self.events.emit("progress", step=step, steps=trainer.total_steps)
            if trainer.progress.epoch == epoch:
                if self.drain.due(step):
                    self._save()
                    self.drain.leave(step)
                if self.saver.due(step):
                    self._save()
        self._finish_epoch(steps, time.perf_counter() - began)

    def _finish_epoch(self, steps: int, seconds: float) -> None:
        trainer, recipe = self.trainer, self.job.recipe
        epoch = trainer.progress.epoch
        losses = trainer.finish_epoch()
        logger.info(epoch_line(epoch, recipe.epochs, seconds, steps, losses["total"], trainer.learning_rate))
        event = {"epoch": epoch, "epochs": recipe.epochs, "step": trainer.progress.step,
                 "total_steps": trainer.total_steps, "loss": losses["total"], "losses": losses,
                 "lr": trainer.learning_rate, "steps": steps, "seconds": round(seconds, 3)}  # fmt: skip
        if epoch % self.job.evaluate_every == 0 or epoch == recipe.epochs:
            began = time.perf_counter()
            if self.rank == 0:
                self.events.emit("evaluating", epoch=epoch, step=trainer.progress.step)
            self.rates = self._evaluate()
            event["evaluate_s"] = round(time.perf_counter() - began, 3)
            if self.rank == 0:
                self.events.emit("evaluated", epoch=epoch, step=trainer.progress.step, **self.rates)
            logger.info(accuracy_line(self.rates["fpr95"], self.rates["accuracy"]))
            event |= self.rates
        if self.rank == 0:
            self.events.emit("epoch", **event)
        self._save()

    def _evaluate(self) -> dict[str, float]:
        beat("evaluating", self.trainer.progress.step)
        distances = self.trainer.distances(self.test, self.job.evaluate_batch)
        labels = np.asarray(self.test.labels)
        rates = {"fpr95": fpr95(distances, labels), "accuracy": accuracy(distances, labels)}
        if not self.evaluated:
            self._keep_graphs()
            self.evaluated = True
        beat("stepping", self.trainer.progress.step)
        return rates

    def _save(self) -> None:
        beat("saving", self.trainer.progress.step)
        self.saver.save(self.trainer, self.rates)
        beat("stepping", self.trainer.progress.step)


def _compile_cache(job: TrainJob, rank: int, world_size: int) -> CompileCache | None:
    if job.compile_cache is None:
        return None
    key = cache_key(job.recipe, job.slices, world_size, job.evaluate_batch)
    return CompileCache(job.compile_cache, key, rank)


def _write_output_to(path: Path) -> None:
    """Send all that this process prints, also from C++, to the rank's log; a new generation appends."""
    # O_NONBLOCK: should a FIFO lie there, it is an error and not a wait for its reader.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    package = logging.getLogger("orchestrator")
    package.setLevel(logging.INFO)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(message)s"))
    package.handlers = [handler]
    package.propagate = False
