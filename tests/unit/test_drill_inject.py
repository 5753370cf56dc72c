"""Faults of ranks and checkpoints, injected into real processes and files and recorded with evidence."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from orchestrator.drill.faults import Damage, Fault
from orchestrator.drill.inject import Target, damage_checkpoint, inject
from orchestrator.drill.rehearsal import same_bytes
from orchestrator.engine.checkpoints import Encoded, newest_valid, write_checkpoint
from orchestrator.engine.host.left_over import RUN_VARIABLE
from orchestrator.job.run_directory import RunDirectory
from orchestrator.process_identity import start_ticks
from orchestrator.telemetry.events import (
    FaultInjected,
)
from orchestrator.telemetry.record import EventReader


@pytest.mark.parametrize("damage", Damage)
def test_a_damaged_checkpoint_is_found_corrupt_and_the_one_before_it_is_used(
    tmp_path: Path, damage: Damage
) -> None:
    run = RunDirectory(tmp_path)
    earlier, newest = (checkpoint(run, step) for step in (3, 5))
    how = damage_checkpoint(run.checkpoints / newest, damage)
    assert how.endswith(f".ckpt {damage.value}")
    name, _, corrupt = newest_valid(run.storage)
    assert name == earlier and [error.name for error in corrupt] == [f"checkpoint {newest}"]


def checkpoint(run: RunDirectory, step: int, optimizer: bytes = b"9876543210") -> str:
    """Write a checkpoint as a rank does; returns its name."""
    files = {"model.ckpt": b"0123456789", "optimizer.ckpt": optimizer}
    return write_checkpoint(run.storage, Encoded(files, {"step": step}))


@pytest.fixture
def rank(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process with the mark of the run in `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE,
        env={RUN_VARIABLE: str(tmp_path)},
    )  # fmt: skip
    yield process
    process.kill()
    process.communicate()


def target_of(run: RunDirectory, fault: Fault, process: "subprocess.Popen[bytes]") -> Target:
    return Target(
        run=run, number=1, fault=fault, damage=Damage.REMOVE, lease=4, generation=2, step=7, rank=0, host="here",
        pid=process.pid, started=start_ticks(process.pid),
    )  # fmt: skip


@pytest.mark.parametrize("fault", [Fault.KILL_RANK, Fault.FREEZE, Fault.CORRUPT_CHECKPOINT])
def test_a_fault_is_made_and_recorded_with_its_proof(
    tmp_path: Path, rank: "subprocess.Popen[bytes]", fault: Fault
) -> None:
    run = RunDirectory(tmp_path)
    _, newest = checkpoint(run, 3), checkpoint(run, 5)
    assert inject("here", target_of(run, fault, rank)) == ""
    [event] = [found.event for found in EventReader(run.storage).read()]
    assert isinstance(event, FaultInjected)
    assert [name.split("/")[1] for name in run.storage.list("events/")] == ["000004"]
    assert (event.number, event.fault, event.generation, event.step, event.rank) == (1, fault.value, 2, 7, 0)
    if fault is Fault.FREEZE:
        assert psutil.Process(rank.pid).status() == psutil.STATUS_STOPPED
        assert event.proof == f"process {rank.pid} is stopped"
    else:
        rank.wait()  # by itself it would never end
        assert event.proof.endswith(f"process {rank.pid} is gone")
    corrupts = fault is Fault.CORRUPT_CHECKPOINT
    assert (event.checkpoint, event.damage) == ((newest, "removed") if corrupts else (None, None))


def test_a_rank_is_not_harmed_when_its_checkpoint_cannot_be_damaged(
    tmp_path: Path, rank: "subprocess.Popen[bytes]"
) -> None:
    run = RunDirectory(tmp_path)
    target = target_of(run, Fault.CORRUPT_CHECKPOINT, rank)
    assert inject("here", target) == "there is no earlier checkpoint to go back to"
    assert psutil.Process(rank.pid).status() != psutil.STATUS_STOPPED
    assert EventReader(run.storage).read() == []


def test_a_process_that_is_not_the_rank_is_left_alone(
    tmp_path: Path, rank: "subprocess.Popen[bytes]"
) -> None:
    target = target_of(RunDirectory(tmp_path), Fault.KILL_RANK, rank)
    assert target.started is not None
    others = (replace(target, started=target.started - 1), replace(target, run=RunDirectory(Path("/other"))))
    for other in others:
        assert inject("here", other) == f"process {rank.pid} is not rank 0 of this run"
    assert rank.poll() is None


@pytest.mark.parametrize(
    ("step", "optimizer", "same"), [(9, b"o", True), (9, b"p", False), (8, b"o", False)], ids=str
)
def test_runs_are_equal_when_the_files_of_their_last_checkpoints_are(
    tmp_path: Path, step: int, optimizer: bytes, same: bool
) -> None:
    clean, disturbed = (RunDirectory(tmp_path / name) for name in ("clean", "disturbed"))
    for run in (clean, disturbed):
        run.root.mkdir()
    checkpoint(clean, 9, b"o")
    checkpoint(disturbed, step, b"torn")
    assert checkpoint(disturbed, step, optimizer) == f"step_{step:08d}.2"
    assert same_bytes(clean, disturbed) is same
    (disturbed.checkpoints / f"step_{step:08d}.2" / "model.ckpt").unlink()
    assert not same_bytes(clean, disturbed)


def test_a_run_without_a_checkpoint_is_equal_to_none(tmp_path: Path) -> None:
    runs = [RunDirectory(tmp_path / name) for name in ("clean", "disturbed")]
    for run in runs:
        run.make_root()
    assert not same_bytes(*runs)
