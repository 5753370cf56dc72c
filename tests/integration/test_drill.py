"""A drill on one machine: the faults are injected, the run ends with the same bytes, and the report shows both."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.job.run_directory import RunDirectory
from orchestrator.telemetry.events import CheckpointCorrupt, FaultInjected, RankJoined, RunStarted
from tests.integration.jobs import STEPS, job_file
from tests.launching import events_of, reuse_graphs, wait_for_checkpoint

pytestmark = pytest.mark.integration


def drill(storage: Path, name: str, epochs: int, *options: str) -> "subprocess.Popen[str]":
    """Start a drill of the small job, with Ray started by each launch."""
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli", "drill", str(job_file(storage, name)), "--seed", "7",
         "--set", "cluster.address=local", "--set", f"train.epochs={epochs}",
         "--set", "recovery.step_timeout_s=8", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def report_of(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """The JSON object that a successful drill prints."""
    output, errors = process.communicate()
    assert process.returncode == 0, output + errors
    report: dict[str, Any] = json.loads(output)
    return report


def test_a_rank_killed_in_a_drill_is_reported_and_timed_and_changes_no_byte(clean: RunDirectory) -> None:
    storage = clean.root.parent
    # The undisturbed run is done: the drill finds it finished.
    (storage / "short-drill-clean").symlink_to(clean.root)
    reuse_graphs(clean, RunDirectory(storage / "short-drill"))
    report = report_of(drill(storage, "short", 2, "--faults", "kill-rank", "--count", "1", "--json"))
    assert (report["injected"], report["status"], report["same_bytes"]) == (1, "succeeded", True)
    assert 0 < report["goodput"] < 1
    [fault] = report["faults"]
    assert fault["fired"] and fault["named"] == "rank_crashed" and fault["seconds_lost"] > 0
    run = RunDirectory(storage / "short-drill")
    [injected] = events_of(run, FaultInjected)
    assert injected.proof.endswith("is gone") and injected.step >= STEPS / 2
    assert json.loads((run.root / "drill.json").read_text()) == report


@pytest.mark.soak
def test_every_fault_of_one_machine_is_survived_with_the_same_bytes(tmp_path: Path) -> None:
    report = report_of(drill(tmp_path, "three", 8, "--count", "3", "--json"))
    assert (report["injected"], report["status"], report["same_bytes"]) == (3, "succeeded", True)
    named = {fault["fault"]: fault["named"] for fault in report["faults"]}
    assert named == {"kill-rank": "rank_crashed", "freeze": "hang", "corrupt-checkpoint": "rank_crashed"}
    run = RunDirectory(tmp_path / "three-drill")
    [corrupt] = events_of(run, CheckpointCorrupt)
    assert (run.checkpoints / corrupt.checkpoint / "corrupt").exists()
    assert not list(run.checkpoints.rglob(".*"))


@pytest.mark.soak
def test_an_interrupted_drill_stops_its_run_cleanly(tmp_path: Path) -> None:
    process = drill(tmp_path, "stopped", 400, "--faults", "freeze", "--count", "1")
    run = RunDirectory(tmp_path / "stopped-drill-clean")
    wait_for_checkpoint(run, 2)
    [launch] = events_of(run, RunStarted)
    pids = [launch.pid, *(joined.pid for joined in events_of(run, RankJoined))]
    processes = [psutil.Process(pid) for pid in pids]
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130 and "the drill was interrupted" in errors
    assert json.loads(run.summary.read_text())["status"] == "stopped"
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert not alive
