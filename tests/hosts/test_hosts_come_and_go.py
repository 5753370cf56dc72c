"""Hosts that are taken away with notice, lost while data is prepared, or come back."""

import json
import re
import signal
import subprocess
import time

import psutil
import pytest

from orchestrator.job.run_directory import RunDirectory
from orchestrator.telemetry.events import (
    DrainNoticed,
    Epoch,
    FailureDetected,
    FirstStep,
    GroupRestarting,
    GroupStarted,
    Resumed,
    ShardDone,
    ShardLost,
)
from tests.hosts.bed import Bed
from tests.hosts.host import RAY, Host
from tests.hosts.jobs import STEPS, ended_well, host_of, launch, weights
from tests.hosts.network import why_impossible
from tests.launching import NoteSeconds, events_of, times_of, wait_for, wait_for_checkpoint

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.integration,
    pytest.mark.soak,
    pytest.mark.timeout(280),
    pytest.mark.skipif(bool(why_impossible()), reason=why_impossible() or "-"),
]

PREPARED = """
name: {name}
cluster: {{address: auto, workers: 2}}
data: {{synthetic: {{pairs: 160, scenes: 8}}, patches: {{per_pair: 6}}, split: {{train: 0.5}}}}
train: {{recipe: demo}}
"""


def drain(cluster: Bed, host: Host, seconds: int) -> None:
    """Announce that the host goes away."""
    [raylet] = host.processes("raylet")
    [node_id] = [word.split("=")[1] for word in raylet.cmdline() if word.startswith("--node_id=")]
    cluster.head.run(
        [RAY, "drain-node", "--address", cluster.ray_address, "--node-id", node_id,
         "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "taken away",
         "--deadline-remaining-seconds", str(seconds)]
    )  # fmt: skip


def wait_for_group(run: RunDirectory, size: int, after: int) -> GroupStarted:
    """The first group of this size in a generation after `after`."""
    return wait_for(run, GroupStarted, lambda group: group.world_size == size and group.generation > after)


def test_a_host_that_is_drained_is_left_before_its_deadline_and_no_step_is_lost(
    cluster: Bed, clean: RunDirectory, note_seconds: NoteSeconds
) -> None:
    process, run = launch(cluster, "drained")
    host = host_of(cluster, run, 1)
    wait_for(run, FirstStep)
    drain(cluster, host, seconds=60)
    notice = wait_for(run, DrainNoticed)
    assert (notice.ranks, notice.hosts) == ((1,), (host.address,))
    assert notice.left_s is not None and notice.left_s > 0
    ended_well(process)
    [failure] = events_of(run, FailureDetected)
    assert (failure.kind, failure.rank, failure.host) == ("preempted", 1, host.address)
    [noticed_at], [failed_at] = times_of(run, DrainNoticed), times_of(run, FailureDetected)
    assert failed_at < noticed_at + notice.left_s
    last = events_of(run, GroupStarted)[-1]
    assert last.world_size == 2 and host.address not in last.hosts
    note_seconds(run, noticed_at)
    [resumed] = events_of(run, Resumed)
    assert f"saved at step {resumed.step}" in failure.detail
    assert json.loads(run.summary.read_text())["lost_steps"] == 0
    assert weights(run) == weights(clean)
    host.kill()
    cluster.restart(host)


def test_a_launch_that_is_terminated_saves_first_and_no_step_is_lost(
    cluster: Bed, clean: RunDirectory, note_seconds: NoteSeconds
) -> None:
    process, run = launch(cluster, "terminated")
    host = host_of(cluster, run, 1)
    wait_for(run, FirstStep)
    # Steps take long: the last one is not done before the ranks have heard.
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


def test_an_elastic_group_goes_on_with_the_host_that_is_left_and_takes_one_back(
    cluster: Bed, clean: RunDirectory, note_seconds: NoteSeconds
) -> None:
    spare = cluster.hosts[3]
    spare.kill()
    process, run = launch(cluster, "elastic", workers=[1, 2])
    first = wait_for(run, GroupStarted)
    assert first.world_size == 2
    host = host_of(cluster, run, 1)
    wait_for_checkpoint(run, 2)
    killed_at = time.time()
    host.kill()
    alone = wait_for_group(run, 1, after=first.generation)
    cluster.restart(host)
    back = wait_for_group(run, 2, after=alone.generation)
    ended_well(process)
    [failure] = events_of(run, FailureDetected)
    assert (failure.kind, failure.host) == ("host_lost", host.address)
    assert host.address in back.hosts
    assert events_of(run, GroupRestarting)[-1].reason == "a host came back: 1 -> 2 ranks"
    note_seconds(run, killed_at)
    epochs, undisturbed = events_of(run, Epoch), events_of(clean, Epoch)
    assert {event.step: event.lr for event in epochs} == {e.step: e.lr for e in undisturbed}
    assert json.loads(run.summary.read_text())["steps"] == STEPS
    cluster.restart(spare)


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
