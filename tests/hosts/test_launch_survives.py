"""A launch over hosts goes on when one of them dies."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.events import EventLog
from orchestrator.report.live import follow
from orchestrator.run_directory import RunDirectory
from tests.hosts.bed import GCS_PORT, Bed, bed
from tests.hosts.network import why_impossible
from tests.hosts.test_bed import QUICK_TO_NOTICE

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.integration,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(why_impossible()), reason=why_impossible() or "-"),
]

JOB = """
name: survivor
storage: {storage}
cluster: {{address: auto, workers: 2, workers_per_host: 1}}
data:
  synthetic: {{pairs: 16, scenes: 4}}
  patches: {{per_pair: 6}}
  split: {{train: 0.5}}
train: {{recipe: demo, epochs: 4, batch: 8}}
checkpoint: {{every_s: 0, keep: 2}}
evaluate: {{every_epochs: 4, batch: 32}}
"""


def launch(cluster: Bed) -> "subprocess.Popen[str]":
    job = cluster.storage / "survivor.yaml"
    job.write_text(JOB.format(storage=cluster.storage))
    return cluster.head.popen(
        [str(Path(sys.executable).with_name("sdnet-orchestrate")), "launch", str(job)],
        {"RAY_ADDRESS": f"{cluster.head.address}:{GCS_PORT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def wait_for(run: RunDirectory, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    return next(event for event in follow(EventLog(run.events), threading.Event()) if wanted(event))


def test_a_host_that_dies_is_replaced_by_a_spare_one_and_the_run_succeeds() -> None:
    with bed(3, QUICK_TO_NOTICE) as cluster:
        cluster.start_ray()
        process = launch(cluster)
        run = RunDirectory(cluster.storage / "survivor")
        first = wait_for(run, lambda event: event["event"] == "group_started")
        wait_for(run, lambda event: event["event"] == "checkpoint_saved" and event["step"] >= 2)
        victim = next(
            host for host in cluster.hosts if host.address in first["hosts"] and host is not cluster.head
        )
        victim.kill()
        output, _ = process.communicate()
        assert process.returncode == 0, output
        told = EventLog(run.events).read()
        failures = [event for event in told if event["event"] == "failure_detected"]
        assert failures[0]["kind"] == "host_lost" and failures[0]["host"] == victim.address
        last = [event for event in told if event["event"] == "group_started"][-1]
        assert last["world_size"] == 2 and victim.address not in last["hosts"]
        summary = json.loads(run.summary.read_text())
        assert summary["status"] == "succeeded" and summary["restarts"] >= 1
