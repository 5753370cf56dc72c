"""Hosts that are drained, lost while data is prepared, or return."""

import json
import re
import signal
import subprocess
import time

import psutil
import pytest

from orchestrator.job.run_directory import RunDirectory
from orchestrator.telemetry.events import (
    FailureDetected,
    FirstStep,
    Resumed,
    ShardDone,
    ShardLost,
)
from tests.hosts.bed import Bed
from tests.hosts.host import Host
from tests.hosts.jobs import ended_well, host_of, launch, weights
from tests.hosts.network import why_impossible
from tests.launching import NoteSeconds, events_of, wait_for

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.integration,
    pytest.mark.soak,
    pytest.mark.skipif(bool(why_impossible()), reason=why_impossible() or "-"),
]

PREPARED = """
name: {name}
cluster: {{address: auto, workers: 2}}
data: {{synthetic: {{pairs: 160, scenes: 8}}, patches: {{per_pair: 6}}, split: {{train: 0.5}}}}
train: {{recipe: demo}}
"""


def test_a_launch_that_is_terminated_saves_first_and_no_step_is_lost(
    cluster: Bed, clean: RunDirectory, note_seconds: NoteSeconds
) -> None:
    process, run = launch(cluster, "terminated")
    host = host_of(cluster, run, 1)
    wait_for(run, FirstStep)
    # Slow steps: the run must not end before the ranks have the notice.
    host.impair_link(delay_ms=50)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate()
    host.clear_link()
    assert process.returncode == 143 and "stopping: 2 rank(s) save first" in output
    [left] = re.findall(r"the launch ends; saved at step (\d+)", (run.logs / "rank_0.log").read_text())
    launched_at = time.time()
    again, _ = launch(cluster, "terminated")
    ended_well(again)
    note_seconds(run, launched_at)
    assert [event.step for event in events_of(run, Resumed)] == [int(left)]
    assert not events_of(run, FailureDetected)
    assert json.loads(run.summary.read_text())["lost_steps"] == 0
    assert weights(run) == weights(clean)


def prepare(cluster: Bed, name: str) -> tuple["subprocess.Popen[str]", RunDirectory]:
    """Start to prepare the data of a job."""
    job = cluster.storage / f"{name}.yaml"
    job.write_text(f"storage: {cluster.storage}\n" + PREPARED.format(name=name))
    return cluster.sdnet_orchestrate("preprocess", str(job)), RunDirectory(cluster.storage / name)


def test_a_host_that_is_killed_while_data_is_prepared_costs_its_shards_and_not_one_bit(cluster: Bed) -> None:
    undisturbed, expected = prepare(cluster, "whole")
    ended_well(undisturbed)
    process, run = prepare(cluster, "halved")
    wait_for(run, ShardDone, lambda event: event.done == 3)
    busy: list[tuple[Host, psutil.Process]] = []
    while not busy:
        busy = [(host, worker) for host in cluster.hosts for worker in host.processes("ray::make_shard")]
    host, worker = busy[0]
    host.kill()
    assert not worker.is_running()
    ended_well(process)
    assert events_of(run, ShardLost)
    assert run.train_npz.read_bytes() == expected.train_npz.read_bytes()
    assert run.test_npz.read_bytes() == expected.test_npz.read_bytes()
    cluster.restart(host)
