"""The epoch loop: step, evaluate, report. `sdnet train` and a cluster's ranks run it with their own hooks."""

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sdnet.data.store import PatchFile
from sdnet.evaluation.metrics import accuracy, fpr95
from sdnet.training.trainer import Trainer


@dataclass(frozen=True, slots=True)
class EpochReport:
    """The results of an epoch, or of the rest of one after a resume.

    losses: mean of each loss over the epoch's steps.
    lr: of the last step.
    steps, seconds: of this process in the epoch.
    rates: the newest known `fpr95` and `accuracy`; empty before the first evaluation.
    evaluate_s: None when this epoch was not evaluated.
    """

    epoch: int
    step: int
    losses: dict[str, float]
    lr: float
    steps: int
    seconds: float
    rates: dict[str, float]
    evaluate_s: float | None


class Hooks(Protocol):
    """Callbacks of the epoch loop. Every rank of a group must do the same in them."""

    def stepped(self, trainer: Trainer) -> None:
        """Called after each step that does not end an epoch. The device may still be computing it."""

    def evaluating(self, epoch: int) -> AbstractContextManager[None]:
        """A context manager around each evaluation."""

    def epoch_finished(self, trainer: Trainer, report: EpochReport) -> None:
        """Called at the end of an epoch. It must save."""


def train_epochs(
    trainer: Trainer,
    test: PatchFile,
    hooks: Hooks,
    *,
    evaluate_every: int = 1,
    evaluate_batch: int = 600,
    rates: dict[str, float] | None = None,
) -> dict[str, float]:
    """Train to the end of the recipe; returns the newest `fpr95` and `accuracy`.

    evaluate_every: epochs between evaluations; the last epoch is always evaluated. rates: of a checkpoint that was
    resumed from. Raises NonFiniteLoss.
    """
    rates = dict(rates or {})
    while trainer.progress.step < trainer.total_steps:
        epoch, began, steps = trainer.progress.epoch, time.perf_counter(), 0
        while trainer.progress.epoch == epoch:
            trainer.step()
            steps += 1
            if trainer.progress.epoch == epoch:
                hooks.stepped(trainer)
        losses, seconds = trainer.finish_epoch(), time.perf_counter() - began
        done, evaluate_s = trainer.progress.epoch, None
        if done % evaluate_every == 0 or done == trainer.recipe.epochs:
            began = time.perf_counter()
            with hooks.evaluating(done):
                rates = rates_of(trainer, test, evaluate_batch)
            evaluate_s = time.perf_counter() - began
        report = EpochReport(
            done, trainer.progress.step, losses, trainer.learning_rate, steps, seconds, rates, evaluate_s
        )
        hooks.epoch_finished(trainer, report)
    return rates


def rates_of(trainer: Trainer, test: PatchFile, batch: int) -> dict[str, float]:
    """`fpr95` and `accuracy` of the current weights. Collective: every rank must call it."""
    distances, labels = trainer.distances(test, batch), np.asarray(test.labels)
    return {"fpr95": fpr95(distances, labels), "accuracy": accuracy(distances, labels)}
