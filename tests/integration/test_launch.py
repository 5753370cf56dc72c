"""One command from image pairs to an evaluated network, for real."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from orchestrator.engine.checkpoints import checkpoint_names
from orchestrator.job.run_directory import RunDirectory
from orchestrator.telemetry.events import CheckpointSaved, Evaluated
from sdnet.config import SyntheticConfig
from sdnet.preparation.synthetic import make_tree
from tests.integration.jobs import STEPS, job_file
from tests.integration.ray_node import RayCluster
from tests.launching import events_of, names_of, wait_for_checkpoint
from tests.unit.sdnet_checkpoints import save

pytestmark = pytest.mark.integration


def test_a_submitted_job_succeeds_and_streams_plain_text(
    submitted: subprocess.CompletedProcess[str], clean: RunDirectory
) -> None:
    assert "succeeded" in submitted.stdout
    assert "epoch 2: loss" in submitted.stdout
    ours = submitted.stdout[submitted.stdout.index("preprocess: started") : submitted.stdout.index("epoch 2")]
    assert "\x1b" not in ours


def test_the_run_directory_contains_what_the_design_says(clean: RunDirectory) -> None:
    summary = json.loads(clean.summary.read_text())
    assert summary["status"] == "succeeded" and summary["world_size"] == 2
    assert summary["steps"] == STEPS and summary["epochs"] == 2
    assert summary["patches"] == {"train": 48, "test": 96}
    assert 0 <= summary["fpr95"] <= 1 and summary["restarts"] == 0 and summary["lost_steps"] == 0
    assert summary["checkpoint"] == f"step_{STEPS:08d}"
    assert all(seconds > 0 for seconds in summary["seconds"].values())
    state = json.loads((clean.checkpoints / summary["checkpoint"] / "state.json").read_text())
    assert state["step"] == STEPS and state["metrics"]["fpr95"] == summary["fpr95"]
    happened = names_of(clean)
    order = ["run_started", "stage_started", "shard_done", "stage_finished", "group_starting", "rank_joined",
             "group_started", "first_step", "epoch", "run_finished"]  # fmt: skip
    assert [happened.index(name) for name in order] == sorted(happened.index(name) for name in order)
    assert clean.job.exists() and clean.manifest.exists()
    [first, second] = events_of(clean, Evaluated)
    assert (first.epoch, second.epoch, second.fpr95) == (1, 2, summary["fpr95"])
    assert "clean: succeeded" in clean.report.read_text()


def test_each_rank_logs_its_epochs_in_the_published_form(clean: RunDirectory) -> None:
    for rank in (0, 1):
        log = (clean.logs / f"rank_{rank}.log").read_text()
        assert "epoch: [  1/  2], epoch time:" in log and "Accuracy(FPR95): " in log


def test_only_the_newest_checkpoints_and_the_best_are_kept(clean: RunDirectory) -> None:
    kept = checkpoint_names(clean.storage)
    assert kept[-2:] == [f"step_{STEPS - 1:08d}", f"step_{STEPS:08d}"] and len(kept) <= 3


def test_a_finished_job_says_so_and_does_nothing(ray_cluster: RayCluster, clean: RunDirectory) -> None:
    before = clean.events.read_bytes()
    again = ray_cluster.run("sdnet-orchestrate", "launch", str(clean.root.parent / "clean.yaml"))
    assert again.returncode == 0 and "finished; nothing to do" in again.stdout
    assert clean.events.read_bytes() == before


def test_the_same_name_for_another_job_is_refused(ray_cluster: RayCluster, clean: RunDirectory) -> None:
    job = str(clean.root.parent / "clean.yaml")
    refused = ray_cluster.run("sdnet-orchestrate", "launch", job, "--set", "train.lr=0.001")
    assert refused.returncode == 2 and "a job with train.lr 0.004, not 0.001;" in refused.stderr
    assert "Traceback" not in refused.stderr
    forgiving = ray_cluster.run("sdnet-orchestrate", "launch", job, "--set", "data.max_bad_images=0.5")
    assert forgiving.returncode == 0 and "nothing to do" in forgiving.stdout


def test_images_replaced_under_a_run_are_refused_before_a_rank_starts(
    ray_cluster: RayCluster, storage: Path
) -> None:
    make_tree(storage / "images", SyntheticConfig(pairs=16, scenes=4))
    run, images = RunDirectory(storage / "replaced"), f"data.images={storage / 'images'}"
    run.create()
    save(run.checkpoints, 3, data={"train.npz": "0" * 64, "test.npz": "1" * 64})
    refused = ray_cluster.run(
        "sdnet-orchestrate", "launch", str(job_file(storage, "replaced")), "--set", images
    )
    note, error = refused.stderr.splitlines()
    assert refused.returncode == 2, refused.stderr
    assert note == "note: data.images gives images, so data.synthetic has no effect"
    assert "trained with another test.npz (checksum 111111111111, now" in error
    happened = names_of(run)
    assert "stage_finished" in happened and "group_starting" not in happened


def test_a_job_that_the_cluster_refuses_can_be_corrected_under_the_same_name(
    ray_cluster: RayCluster, storage: Path
) -> None:
    job = str(job_file(storage, "corrected"))
    for mistake in ("cluster.workers=6", "cluster.workers=5", "cluster.threads=2"):
        refused = ray_cluster.run("sdnet-orchestrate", "launch", job, "--set", mistake)
        assert refused.returncode == 2 and refused.stderr.count("\n") == 1, refused.stderr
        assert "hold only" in refused.stderr


def test_a_submitted_job_with_a_relative_storage_is_refused_in_one_line(
    ray_cluster: RayCluster, storage: Path
) -> None:
    refused = ray_cluster.submit_launch(job_file(storage, "relative"), overrides=("--set", "storage=./runs"))
    assert refused.returncode == 1 and "Job '" in refused.stdout + refused.stderr
    reported = " ".join((refused.stdout + refused.stderr).split())
    assert "storage is './runs'" in reported and "Ray's copy of the submitted folder" in reported
    assert "an absolute path" in reported and "Traceback" not in reported


@pytest.mark.soak
def test_a_submitted_job_that_is_stopped_saves_first(ray_cluster: RayCluster, storage: Path) -> None:
    job, run = job_file(storage, "halted"), RunDirectory(storage / "halted")
    long = ("--set", "train.epochs=200")
    begun = ray_cluster.submit_launch(job, "--submission-id", "halted", "--no-wait", overrides=long)
    assert begun.returncode == 0, begun.stderr
    wait_for_checkpoint(run, 1)
    stopped = ray_cluster.run("ray", "job", "stop", "--address", ray_cluster.dashboard, "halted")
    assert stopped.returncode == 0 and "Job 'halted' was stopped" in stopped.stdout
    assert json.loads(run.summary.read_text())["status"] == "stopped"
    [left] = re.findall(r"the launch ends; saved at step (\d+)", (run.logs / "rank_0.log").read_text())
    assert events_of(run, CheckpointSaved)[-1].step == int(left)


def test_evaluate_gives_the_runs_own_bits_for_any_number_of_workers(
    ray_cluster: RayCluster, clean: RunDirectory, tmp_path: Path
) -> None:
    summary = json.loads(clean.summary.read_text())
    reports, distances = [], []
    for workers in (1, 2):
        out = tmp_path / f"{workers}.npy"
        done = ray_cluster.run(
            "sdnet-orchestrate", "evaluate", "--checkpoint", str(clean.checkpoints / summary["checkpoint"]),
            "--data", str(clean.test_npz), "--workers", str(workers), "--batch", "32", "--json",
            "--address", ray_cluster.address, "--distances", str(out),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        reports.append(json.loads(done.stdout))
        distances.append(np.load(out))
    assert (reports[0]["fpr95"], reports[0]["accuracy"]) == (summary["fpr95"], summary["accuracy"])
    assert {"fpr95_interval", "recall_at_1", "hard_negatives", "scenes"} <= set(reports[0])
    assert reports[0] == reports[1]
    assert np.array_equal(distances[0], distances[1]) and len(distances[0]) == 96


def test_a_cluster_that_does_not_answer_or_is_too_small_is_reported_in_one_line(
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
