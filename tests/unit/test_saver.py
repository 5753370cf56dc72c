"""When to save, and a save that storage refuses: what that costs depends on what was saved before."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import ray.train
import ray.train.collective
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.run_directory import RunDirectory
from orchestrator.training import saver
from orchestrator.training.saver import CheckpointNotSaved, Saver
from sdnet.trainer import Progress


class Clock:
    """Stands for the module `time`; seconds pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class RefusedSnapshot:
    """Every try to write it fails with this errno."""

    def __init__(self, number: int = errno.ENOSPC):
        self.number, self.tries = number, 0

    def write(self, directory: Path) -> None:
        self.tries += 1
        raise OSError(self.number, os.strerror(self.number))


class TrainerOnAFullDisk:
    def __init__(self, step: int, number: int = errno.ENOSPC):
        self.progress = Progress(epoch=0, step=step, samples=step)
        self.refused = RefusedSnapshot(number)

    def snapshot(self, metrics: dict[str, float]) -> RefusedSnapshot:
        return self.refused


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the checkpoints that Ray Train was given; a group of one that writes at once stands for it."""
    paths: list[str] = []

    def report(
        metrics: dict[str, float], *, checkpoint: Any, checkpoint_dir_name: str,
        checkpoint_upload_fn: Callable[[Any, str], Any], **options: Any,
    ) -> None:  # fmt: skip
        paths.append(checkpoint_upload_fn(checkpoint, checkpoint_dir_name).path)

    monkeypatch.setattr(ray.train, "report", report)
    monkeypatch.setattr(ray.train.collective, "broadcast_from_rank_zero", lambda value: value)
    monkeypatch.setattr(saver, "_RETRY_AFTER_S", ())
    return paths


def saver_of(folder: Path, every_s: float = 0) -> tuple[Saver, RunDirectory]:
    run = RunDirectory(folder)
    run.create()
    return Saver(run, keep=2, every_s=every_s, rank=0), run


def test_a_refused_save_with_no_checkpoint_to_go_back_to_is_a_failure(
    tmp_path: Path, reported: list[str]
) -> None:
    refused, run = saver_of(tmp_path)
    with pytest.raises(CheckpointNotSaved, match=f"step_00000007.*{os.strerror(errno.ENOSPC)}"):
        refused.save(TrainerOnAFullDisk(7), {})
    assert not reported


def test_a_refused_save_after_a_resume_leaves_training_the_checkpoint_it_resumed_from(
    tmp_path: Path, reported: list[str]
) -> None:
    refused, run = saver_of(tmp_path)
    earlier = run.checkpoints / "step_00000004"
    refused.resumed_from(earlier)
    refused.save(TrainerOnAFullDisk(7), {})
    assert reported == [str(earlier)]


@pytest.mark.parametrize(
    ("number", "storage_is_there", "tries"),
    [(errno.EISDIR, True, 1), (errno.EACCES, True, 1), (errno.ENOTDIR, False, 3), (errno.EIO, True, 3)],
)
def test_a_path_that_is_blocked_is_tried_once_and_storage_that_may_come_back_again(
    tmp_path: Path, reported: list[str], monkeypatch: pytest.MonkeyPatch, number: int, storage_is_there: bool,
    tries: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(saver, "_RETRY_AFTER_S", (0.0, 0.0))
    blocked, run = saver_of(tmp_path / "run")
    blocked.resumed_from(run.checkpoints / "step_00000004")
    trainer = TrainerOnAFullDisk(7, number)
    if not storage_is_there:
        run.root.rename(tmp_path / "away")
    blocked.save(trainer, {})
    assert trainer.refused.tries == tries
    if not storage_is_there:
        (tmp_path / "away").rename(run.root)  # the events that wait for it are written


@given(step_s=st.floats(0.01, 100), every_s=st.floats(0, 1000))
def test_no_more_than_an_interval_of_work_is_ever_unsaved_but_for_the_steps_that_it_takes_to_measure_one(
    step_s: float, every_s: float
) -> None:
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        clock = Clock()
        patch.setattr(saver, "time", clock)
        # Nothing is written here: it only counts when.
        patch.setattr(ray.train, "report", lambda metrics, **options: None)
        patch.setattr(ray.train.collective, "broadcast_from_rank_zero", lambda value: value)
        timed, _ = saver_of(Path(folder), every_s)
        unsaved, most = 0, 0
        for step in range(1, 60):
            clock.now += step_s
            unsaved += 1
            most = max(most, unsaved)
            if timed.due(step):
                timed.save(TrainerOnAFullDisk(step), {})
                unsaved = 0
    # The first step of a process compiles, three more are watched, and a step cannot be cut.
    assert (most - 1) * step_s <= max(every_s, 4 * step_s) * (1 + 1e-9)
