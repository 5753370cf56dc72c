"""One command from image pairs to an evaluated network, for real; and the same bytes after a fault."""

import hashlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from orchestrator.events import EventLog
from orchestrator.report.live import follow
from orchestrator.run_directory import RunDirectory
from tests.integration.conftest import RayCluster, program

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

JOB = """
name: {name}
storage: {storage}
cluster: {{address: auto, workers: 2}}
data:
  synthetic: {{pairs: 16, scenes: 4}}
  patches: {{per_pair: 6}}
  split: {{train: 0.5}}
train: {{recipe: demo, epochs: 2, batch: 8}}
checkpoint: {{every_s: 0, keep: 2}}
evaluate: {{batch: 32}}
"""
STEPS = 6  # 8 pairs of 6 patches by 16 a step, twice


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


def job_file(storage: Path, name: str) -> Path:
    path = storage / f"{name}.yaml"
    path.write_text(JOB.format(name=name, storage=storage))
    return path


@pytest.fixture(scope="module")
def submitted(ray_cluster: RayCluster, storage: Path) -> subprocess.CompletedProcess[str]:
    """The clean run, through `ray job submit`."""
    job = job_file(storage, "clean")
    while True:  # the test's time-out ends a wait that is in vain
        done = ray_cluster.run(
            "ray", "job", "submit", "--address", ray_cluster.dashboard, "--working-dir", str(storage),
            "--", "sdnet-orchestrate", "launch", str(job), timeout=280,
        )  # fmt: skip
        # A node is up some seconds before the agent that takes its jobs.
        if "No available agent" not in done.stderr:
            return done


@pytest.fixture(scope="module")
def clean(submitted: subprocess.CompletedProcess[str], storage: Path) -> RunDirectory:
    assert submitted.returncode == 0, submitted.stdout[-3000:] + submitted.stderr[-3000:]
    return RunDirectory(storage / "clean")


def launch(cluster: RayCluster, storage: Path, name: str, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(program("sdnet-orchestrate")), "launch", str(job_file(storage, name)), *options],
        env={**cluster.environment, "RAY_ADDRESS": cluster.address},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def wait_for(run: RunDirectory, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first event that is wanted; the test's time-out ends a wait that is in vain."""
    found: Iterator[dict[str, Any]] = follow(EventLog(run.events), threading.Event())
    return next(event for event in found if wanted(event))


def saved(step: int) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["event"] == "checkpoint_saved" and event["step"] >= step


def names(run: RunDirectory) -> list[str]:
    return [event["event"] for event in EventLog(run.events).read()]


def gone_when_their_driver_is(pids: list[int]) -> None:
    """Wait for Ray to end the workers of a launcher that was killed."""
    ranks = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    _, alive = psutil.wait_procs(ranks, timeout=60)
    assert not alive


def weights(run: RunDirectory) -> dict[str, str]:
    """Sums of the last checkpoint's files."""
    last = run.checkpoints / f"step_{STEPS:08d}"
    return {
        name: hashlib.sha256((last / name).read_bytes()).hexdigest()
        for name in ("model.ckpt", "optimizer.ckpt")
    }


def test_a_submitted_job_succeeds_and_streams_plain_text(
    submitted: subprocess.CompletedProcess[str], clean: RunDirectory
) -> None:
    assert "succeeded" in submitted.stdout
    assert "epoch 2: loss" in submitted.stdout
    ours = submitted.stdout[submitted.stdout.index("preprocess: started") : submitted.stdout.index("epoch 2")]
    assert "\x1b" not in ours


def test_the_run_directory_holds_what_the_design_says(clean: RunDirectory) -> None:
    summary = json.loads(clean.summary.read_text())
    assert summary["status"] == "succeeded" and summary["world_size"] == 2
    assert summary["steps"] == STEPS and summary["epochs"] == 2
    assert summary["patches"] == {"train": 48, "test": 96}
    assert 0 <= summary["fpr95"] <= 1 and summary["restarts"] == 0 and summary["lost_steps"] == 0
    assert summary["checkpoint"] == f"step_{STEPS:08d}"
    assert all(seconds > 0 for seconds in summary["seconds"].values())
    state = json.loads((clean.checkpoints / summary["checkpoint"] / "state.json").read_text())
    assert state["step"] == STEPS and state["metrics"]["fpr95"] == summary["fpr95"]
    told = names(clean)
    order = ["run_started", "stage_started", "shard_done", "stage_finished", "group_starting", "rank_joined",
             "group_started", "first_step", "epoch", "run_finished"]  # fmt: skip
    assert [told.index(name) for name in order] == sorted(told.index(name) for name in order)
    assert clean.job.exists() and clean.manifest.exists()
    [first, second] = [event for event in EventLog(clean.events).read() if event["event"] == "evaluated"]
    assert (first["epoch"], second["epoch"], second["fpr95"]) == (1, 2, summary["fpr95"])
    assert "clean: succeeded" in clean.report.read_text()


def test_each_rank_logs_its_epochs_in_the_published_form(clean: RunDirectory) -> None:
    for rank in (0, 1):
        log = (clean.logs / f"rank_{rank}.log").read_text()
        assert "epoch: [  1/  2], epoch time:" in log and "Accuracy(FPR95): " in log


def test_only_the_newest_checkpoints_and_the_best_are_kept(clean: RunDirectory) -> None:
    kept = sorted(path.name for path in clean.checkpoints.glob("step_*"))
    assert kept[-2:] == [f"step_{STEPS - 1:08d}", f"step_{STEPS:08d}"] and len(kept) <= 3


def test_a_finished_job_says_so_and_does_nothing(ray_cluster: RayCluster, clean: RunDirectory) -> None:
    before = clean.events.read_bytes()
    again = ray_cluster.run("sdnet-orchestrate", "launch", str(clean.root.parent / "clean.yaml"))
    assert again.returncode == 0 and "finished; nothing to do" in again.stdout
    assert clean.events.read_bytes() == before


def test_the_same_name_for_another_job_is_refused(ray_cluster: RayCluster, clean: RunDirectory) -> None:
    job = str(clean.root.parent / "clean.yaml")
    refused = ray_cluster.run("sdnet-orchestrate", "launch", job, "--set", "train.lr=0.001")
    assert refused.returncode == 2 and "other train" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_evaluate_gives_the_runs_own_bits_for_any_number_of_workers(
    ray_cluster: RayCluster, clean: RunDirectory, tmp_path: Path
) -> None:
    summary = json.loads(clean.summary.read_text())
    found = []
    for workers in (1, 2):
        out = tmp_path / f"{workers}.npy"
        done = ray_cluster.run(
            "sdnet-orchestrate", "evaluate", "--checkpoint", str(clean.checkpoints / summary["checkpoint"]),
            "--data", str(clean.test_npz), "--workers", str(workers), "--batch", "32", "--json",
            "--address", ray_cluster.address, "--distances", str(out),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        rates = json.loads(done.stdout)
        assert (rates["fpr95"], rates["accuracy"]) == (summary["fpr95"], summary["accuracy"])
        found.append(np.load(out))
    assert np.array_equal(found[0], found[1]) and len(found[0]) == 96


def test_a_rank_killed_in_an_epoch_costs_a_restart_and_not_one_bit(
    ray_cluster: RayCluster, clean: RunDirectory, storage: Path
) -> None:
    process = launch(ray_cluster, storage, "killed")
    run = RunDirectory(storage / "killed")
    victim = wait_for(run, lambda event: event["event"] == "rank_joined" and event["rank"] == 1)["pid"]
    wait_for(run, saved(2))
    os.kill(victim, signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    [failure] = [event for event in EventLog(run.events).read() if event["event"] == "failure_detected"]
    assert (failure["kind"], failure["rank"]) == ("rank_crashed", 1)
    assert json.loads(run.summary.read_text())["restarts"] == 1
    assert weights(run) == weights(clean)


def test_a_frozen_rank_is_named_looked_into_and_replaced(
    ray_cluster: RayCluster, clean: RunDirectory, storage: Path
) -> None:
    process = launch(ray_cluster, storage, "frozen", "--set", "recovery.step_timeout_s=8")
    run = RunDirectory(storage / "frozen")
    frozen = wait_for(run, lambda event: event["event"] == "rank_joined" and event["rank"] == 1)["pid"]
    wait_for(run, saved(2))
    os.kill(frozen, signal.SIGSTOP)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    told = EventLog(run.events).read()
    [hang] = [event for event in told if event["event"] == "hang_found"]
    [ended] = [event for event in told if event["event"] == "group_ended"]
    [failure] = [event for event in told if event["event"] == "failure_detected"]
    assert hang["ranks"] == [1] and (failure["kind"], failure["rank"]) == ("hang", 1)
    assert [(one["rank"], one["gone"]) for one in ended["ranks"]] == [(0, True), (1, True)]
    assert all("train_rank" in Path(one["stacks"]).read_text() for one in ended["ranks"])
    assert not psutil.pid_exists(frozen)
    assert weights(run) == weights(clean)


def test_a_group_whose_scheduler_was_killed_starts_again_with_another(
    ray_cluster: RayCluster, clean: RunDirectory, storage: Path
) -> None:
    process = launch(ray_cluster, storage, "headless")
    run = RunDirectory(storage / "headless")
    owner = wait_for(run, lambda event: event["event"] == "rank_joined" and event["rank"] == 0)["pid"]
    wait_for(run, saved(1))
    [scheduler] = [
        child
        for child in psutil.Process(owner).children()
        if "orchestrator.training.scheduler" in child.cmdline()
    ]
    scheduler.kill()
    output, _ = process.communicate()
    assert process.returncode == 0, output
    [failure] = [event for event in EventLog(run.events).read() if event["event"] == "failure_detected"]
    assert failure["kind"] == "scheduler_lost"
    assert weights(run) == weights(clean)


def test_a_checkpoint_that_was_spoilt_is_set_aside_and_the_one_before_is_used(
    ray_cluster: RayCluster, clean: RunDirectory, storage: Path
) -> None:
    first = launch(ray_cluster, storage, "spoilt")
    run = RunDirectory(storage / "spoilt")
    wait_for(run, saved(4))  # an earlier one is there, too
    first.kill()
    first.communicate()
    joined = [event["pid"] for event in EventLog(run.events).read() if event["event"] == "rank_joined"]
    gone_when_their_driver_is(joined)
    newest = sorted(run.checkpoints.glob("step_*"))[-1]
    model = newest / "model.ckpt"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    output, _ = launch(ray_cluster, storage, "spoilt").communicate()
    told = EventLog(run.events).read()
    [corrupt] = [event for event in told if event["event"] == "checkpoint_corrupt"]
    assert corrupt["checkpoint"] == f"{newest.name}.corrupt" and "model.ckpt" in corrupt["detail"]
    [resumed] = [event for event in told if event["event"] == "resumed"]
    assert (
        resumed["checkpoint"] < newest.name and json.loads(run.summary.read_text())["status"] == "succeeded"
    )
    assert weights(run) == weights(clean), output


def test_a_killed_launcher_is_launched_again_and_ends_with_the_same_bytes(
    ray_cluster: RayCluster, clean: RunDirectory, storage: Path
) -> None:
    first = launch(ray_cluster, storage, "relaunched")
    run = RunDirectory(storage / "relaunched")
    wait_for(run, saved(2))
    second = launch(ray_cluster, storage, "relaunched")
    refusal, _ = second.communicate()
    assert second.returncode == 2 and "is being run by" in refusal
    first.kill()
    first.communicate()
    third = launch(ray_cluster, storage, "relaunched")
    output, _ = third.communicate()
    assert third.returncode == 0, output
    assert "resumed" in names(run)
    assert weights(run) == weights(clean)


def test_an_interrupted_launch_stops_cleanly_and_can_be_resumed(
    ray_cluster: RayCluster, clean: RunDirectory, storage: Path
) -> None:
    process = launch(ray_cluster, storage, "interrupted")
    run = RunDirectory(storage / "interrupted")
    wait_for(run, saved(1))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 130 and "launch again to go on" in output
    assert json.loads(run.summary.read_text())["status"] == "stopped"
    again = launch(ray_cluster, storage, "interrupted")
    output, _ = again.communicate()
    assert again.returncode == 0, output
    assert weights(run) == weights(clean)


def test_a_loss_that_is_not_finite_ends_the_job_at_once_and_names_the_step(
    ray_cluster: RayCluster, storage: Path
) -> None:
    process = launch(ray_cluster, storage, "diverged", "--set", "train.lr=1.0e+30")
    output, _ = process.communicate()
    assert process.returncode == 1 and "Traceback" not in output
    assert "the loss is not finite at step" in output and "lower train.lr" in output
    run = RunDirectory(storage / "diverged")
    assert "group_restarting" not in names(run)
    assert json.loads(run.summary.read_text())["status"] == "failed"


def test_a_cluster_that_does_not_answer_or_is_too_small_is_one_line(
    ray_cluster: RayCluster, storage: Path
) -> None:
    jobs = [str(job_file(storage, name)) for name in ("silent", "small")]
    silent = ray_cluster.run("sdnet-orchestrate", "launch", jobs[0], "--set", "cluster.address=127.0.0.1:1")
    assert silent.returncode == 2 and "no Ray cluster answers there" in silent.stderr
    here = f"cluster.address={ray_cluster.address}"
    small = ray_cluster.run(
        "sdnet-orchestrate",
        "launch",
        jobs[1],
        "--set",
        here,
        "--set",
        "cluster.workers=9",
        "--set",
        "train.batch=2",
    )
    assert small.returncode == 2 and "cluster.workers is 9" in small.stderr and "hold only 2" in small.stderr
    assert "Traceback" not in silent.stderr + small.stderr
