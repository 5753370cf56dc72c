"""Real faults in a launch on one host: each is reported, and the run ends with the same bytes."""

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from orchestrator.engine.checkpoints import checkpoint_names
from orchestrator.job.run_directory import RunDirectory
from orchestrator.telemetry.events import (
    CheckpointCorrupt,
    CheckpointSaved,
    Compiled,
    Evaluated,
    Evaluating,
    FailureDetected,
    FirstStep,
    GroupEnded,
    GroupRestarting,
    GroupStarted,
    HangFound,
    Leaving,
    RankJoined,
    Resumed,
    RunStarted,
)
from tests.integration.jobs import launch, on_a_terminal, pid_of, stopped, succeeded, weights
from tests.integration.ray_node import RayCluster
from tests.launching import NoteSeconds, events_of, wait_for, wait_for_checkpoint

pytestmark = pytest.mark.integration


def wait_for_workers_to_end(run: RunDirectory) -> None:
    """Ray ends the workers of a launcher that was killed; until then they may still save."""
    pids = [event.pid for event in events_of(run, RankJoined)]
    ranks = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    _, alive = psutil.wait_procs(ranks, timeout=60)
    assert not alive


def controller_of(run: RunDirectory) -> psutil.Process:
    raylet = psutil.Process(pid_of(run, 0)).parent()
    assert raylet is not None
    [controller] = [one for one in raylet.children() if "GroupController" in " ".join(one.cmdline())]
    return controller


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.soak), 1])
def test_a_rank_killed_in_an_epoch_costs_a_restart_and_not_one_bit(
    ray_cluster: RayCluster, clean: RunDirectory, storage: Path, note_seconds: NoteSeconds, rank: int
) -> None:
    process, run = launch(ray_cluster, storage, f"killed-{rank}", compiles=True)
    victim = pid_of(run, rank)
    wait_for_checkpoint(run, 2)
    killed_at = time.time()
    os.kill(victim, signal.SIGKILL)
    succeeded(process)
    note_seconds(run, killed_at)
    [failure] = events_of(run, FailureDetected)
    assert (failure.kind, failure.rank) == ("rank_crashed", rank)
    assert [event.cached for event in events_of(run, Compiled)] == [False, True]
    assert json.loads(run.summary.read_text())["restarts"] == 1
    assert weights(run) == weights(clean)


@pytest.mark.soak
def test_a_rank_killed_while_it_evaluates_is_replaced_and_the_evaluation_done_again(
    ray_cluster: RayCluster, clean: RunDirectory, storage: Path, note_seconds: NoteSeconds
) -> None:
    process, run = launch(ray_cluster, storage, "unrated")
    victim = pid_of(run, 1)
    wait_for(run, Evaluating)
    killed_at = time.time()
    os.kill(victim, signal.SIGKILL)
    succeeded(process)
    note_seconds(run, killed_at)
    [failure] = events_of(run, FailureDetected)
    assert (failure.kind, failure.rank) == ("rank_crashed", 1)
    assert [event.epoch for event in events_of(run, Evaluating)] == [1, 1, 2]
    assert [event.epoch for event in events_of(run, Evaluated)] == [1, 2]
    assert weights(run) == weights(clean)


# `test_engine_faults.py` freezes a rank of another workload for every commit.
@pytest.mark.soak
def test_a_frozen_rank_is_reported_with_its_stack_and_replaced(
    ray_cluster: RayCluster, clean: RunDirectory, storage: Path, note_seconds: NoteSeconds
) -> None:
    process, run = launch(ray_cluster, storage, "frozen", "--set", "recovery.step_timeout_s=8")
    frozen = pid_of(run, 1)
    wait_for_checkpoint(run, 2)
    frozen_at = time.time()
    os.kill(frozen, signal.SIGSTOP)
    succeeded(process)
    note_seconds(run, frozen_at)
    [hang] = events_of(run, HangFound)
    [ended] = events_of(run, GroupEnded)
    [failure] = events_of(run, FailureDetected)
    assert hang.ranks == (1,) and (failure.kind, failure.rank) == ("hang", 1)
    assert [(one.rank, one.gone) for one in ended.ranks] == [(0, True), (1, True)]
    assert all("train_sdnet" in (run.root / one.stacks).read_text() for one in ended.ranks)
    assert not psutil.pid_exists(frozen)
    assert weights(run) == weights(clean)


@pytest.mark.soak
def test_a_group_whose_scheduler_was_killed_starts_again_with_another(
    ray_cluster: RayCluster, clean: RunDirectory, storage: Path, note_seconds: NoteSeconds
) -> None:
    with_a_scheduler = ("--set", "cluster.rendezvous=dynamic_cluster")
    process, run = launch(ray_cluster, storage, "headless", *with_a_scheduler)
    owner = pid_of(run, 0)
    wait_for(run, FirstStep)
    [scheduler] = [
        child
        for child in psutil.Process(owner).children()
        if "orchestrator.engine.rank.scheduler" in child.cmdline()
    ]
    killed_at = time.time()
    scheduler.kill()
    succeeded(process)
    note_seconds(run, killed_at)
    [failure] = events_of(run, FailureDetected)
    assert failure.kind == "scheduler_lost"
    assert len(events_of(run, FirstStep)) == 2  # the group had not reached its end
    assert weights(run) == weights(clean)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    "damage",
    [flip_a_bit, *(pytest.param(damage, marks=pytest.mark.soak) for damage in (truncate, Path.unlink))],
    ids=lambda damage: damage.__name__,
)
def test_a_killed_launcher_is_launched_again_without_its_newest_checkpoint_which_is_corrupt(
    ray_cluster: RayCluster,
    clean: RunDirectory,
    storage: Path,
    note_seconds: NoteSeconds,
    damage: Callable[[Path], None],
) -> None:
    name = f"corrupt-{damage.__name__}".replace("_", "-")
    first, run = launch(ray_cluster, storage, name)
    wait_for(run, RunStarted)
    second, _ = launch(ray_cluster, storage, name)
    refusal, _ = second.communicate()
    assert second.returncode == 2 and "is being run by" in refusal
    wait_for_checkpoint(run, 4)  # an earlier one is there, too
    first.kill()
    first.communicate()
    wait_for_workers_to_end(run)
    newest = run.checkpoints / checkpoint_names(run.storage)[-1]
    damage(newest / "model.ckpt")
    launched_at = time.time()
    again, _ = launch(ray_cluster, storage, name)
    succeeded(again)
    note_seconds(run, launched_at)
    [corrupt] = events_of(run, CheckpointCorrupt)
    assert corrupt.checkpoint == newest.name and "model.ckpt" in corrupt.detail
    assert (newest / "corrupt").exists()
    [resumed] = events_of(run, Resumed)
    assert resumed.checkpoint < newest.name
    assert json.loads(run.summary.read_text())["status"] == "succeeded"
    assert weights(run) == weights(clean)


def test_an_interrupted_launch_stops_cleanly_and_can_be_resumed(
    ray_cluster: RayCluster, clean: RunDirectory, storage: Path
) -> None:
    process, run = launch(ray_cluster, storage, "interrupted")
    wait_for(run, FirstStep)  # a later event may come when the few steps of this job are done
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 130 and "launch again to resume" in output
    assert "stopping: 2 rank(s) save first" in output
    assert json.loads(run.summary.read_text())["status"] == "stopped"
    again, _ = launch(ray_cluster, storage, "interrupted")
    succeeded(again)
    assert weights(run) == weights(clean)


def test_ray_survives_a_closed_terminal_and_a_group_signal_until_the_ranks_have_saved(
    ray_cluster: RayCluster, storage: Path, tmp_path: Path
) -> None:
    more_steps_than_it_can_do = ("--set", "cluster.address=local", "--set", "train.epochs=200")
    with on_a_terminal(ray_cluster, storage, "hung-up", tmp_path / "out", *more_steps_than_it_can_do) as (
        process, terminal, run,
    ):  # fmt: skip
        wait_for_checkpoint(run, 1)
        # The kernel sends SIGHUP to the terminal's processes; then the group is ended, as `timeout` does it.
        os.close(terminal)
        wait_for(run, Leaving)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait() == 128 + signal.SIGHUP
    output = (tmp_path / "out").read_text()
    assert "stopping: 2 rank(s) save first" in output and "did not save within" not in output
    assert output.endswith("interrupted; launch again to resume from the last checkpoint\n")
    [left] = re.findall(r"the launch ends; saved at step (\d+)", (run.logs / "rank_0.log").read_text())
    assert events_of(run, CheckpointSaved)[-1].step == int(left)
    assert json.loads(run.summary.read_text())["status"] == "stopped"
    assert {event.hosts[0] for event in events_of(run, GroupStarted)} == {"127.0.0.1"}


@pytest.mark.soak
def test_a_killed_controller_ends_the_launch_in_one_line_and_the_next_resumes_with_the_same_bytes(
    ray_cluster: RayCluster, clean: RunDirectory, storage: Path, note_seconds: NoteSeconds
) -> None:
    process, run = launch(ray_cluster, storage, "uncontrolled")
    wait_for_checkpoint(run, 2)
    controller_of(run).kill()
    output, _ = process.communicate()
    assert process.returncode == 1 and "Traceback" not in output
    assert "training stopped: the controller died: " in output
    assert json.loads(run.summary.read_text())["status"] == "failed"
    wait_for_workers_to_end(run)
    launched_at = time.time()
    again, _ = launch(ray_cluster, storage, "uncontrolled")
    succeeded(again)
    note_seconds(run, launched_at)
    assert weights(run) == weights(clean)


@pytest.mark.soak
def test_a_second_interrupt_exits_at_once_although_the_group_cannot_answer(
    ray_cluster: RayCluster, clean: RunDirectory, storage: Path, note_seconds: NoteSeconds
) -> None:
    process, run = launch(ray_cluster, storage, "impatient")
    wait_for(run, FirstStep)  # a later event may come when the few steps of this job are done
    assert process.stdout is not None
    with stopped([controller_of(run)]):
        process.send_signal(signal.SIGINT)
        assert any("interrupt again to leave at once" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate()
        # After the first signal alone it would have waited until the time-out, and reported that.
        assert process.returncode == 130 and "did not save within" not in output
    assert json.loads(run.summary.read_text())["status"] == "stopped"
    wait_for_workers_to_end(run)
    launched_at = time.time()
    again, _ = launch(ray_cluster, storage, "impatient")
    succeeded(again)
    note_seconds(run, launched_at)
    assert weights(run) == weights(clean)


def test_a_loss_that_is_not_finite_ends_the_job_at_once_and_names_the_step(
    ray_cluster: RayCluster, storage: Path
) -> None:
    # A job that is within the bounds of its keys trains too stably to diverge.
    unbounded = "import sdnet.config\nsdnet.config.MOST_LR = 1e38"
    process, run = launch(ray_cluster, storage, "diverged", "--set", "train.lr=1.0e+30", python=unbounded)
    output, _ = process.communicate()
    assert process.returncode == 1 and "Traceback" not in output
    assert "the loss is not finite at step" in output and "lower the learning rate" in output
    assert not events_of(run, GroupRestarting)
    assert json.loads(run.summary.read_text())["status"] == "failed"
