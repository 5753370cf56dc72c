"""A save that storage refuses: what it costs depends on whether an earlier checkpoint is good."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray.train
import ray.train.collective

from orchestrator.run_directory import RunDirectory
from orchestrator.training import saver
from orchestrator.training.saver import CheckpointNotSaved, Saver
from sdnet.trainer import Progress


class RefusedSnapshot:
    def write(self, directory: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class TrainerOnAFullDisk:
    progress = Progress(epoch=0, step=7, samples=7)

    def snapshot(self, metrics: dict[str, float]) -> RefusedSnapshot:
        return RefusedSnapshot()


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


def saver_of(folder: Path) -> tuple[Saver, RunDirectory]:
    run = RunDirectory(folder)
    run.create()
    return Saver(run, keep=2, every_s=0, rank=0), run


def test_a_refused_save_with_no_checkpoint_to_go_back_to_is_a_failure(
    tmp_path: Path, reported: list[str]
) -> None:
    refused, run = saver_of(tmp_path)
    with pytest.raises(CheckpointNotSaved, match=f"step_00000007.*{os.strerror(errno.ENOSPC)}"):
        refused.save(TrainerOnAFullDisk(), {})
    assert not reported


def test_a_refused_save_after_a_resume_leaves_training_the_checkpoint_it_resumed_from(
    tmp_path: Path, reported: list[str]
) -> None:
    refused, run = saver_of(tmp_path)
    earlier = run.checkpoints / "step_00000004"
    refused.resumed_from(earlier)
    refused.save(TrainerOnAFullDisk(), {})
    assert reported == [str(earlier)]
