"""SDNet and two training functions that are not SDNet lose hosts, and end with the same bytes."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.job.run_directory import RunDirectory
from orchestrator.telemetry.events import (
    CheckpointSaved,
    DrainNoticed,
    Epoch,
    FailureDetected,
    GroupRestarting,
    GroupStarted,
    Resumed,
)
from tests.hosts.bed import Bed, await_node
from tests.hosts.jobs import STEPS, drain, ended_well, host_of, launch
from tests.hosts.network import why_impossible
from tests.launching import NoteSeconds, checksums, events_of, times_of, wait_for, wait_for_checkpoint

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.integration,
    pytest.mark.skipif(bool(why_impossible()), reason=why_impossible() or "-"),
]

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Sdnet:
    """The job of `jobs.launch`. delay_ms: slows the steps down, so that a run outlasts the faults."""

    steps: int = STEPS
    delay_ms: float = 5.0

    def start(self, cluster: Bed, name: str) -> tuple["subprocess.Popen[str]", RunDirectory]:
        return launch(cluster, name)


@dataclass(frozen=True)
class Example:
    """The training function of a module in examples/; its steps are short, so the network is slowed down."""

    module: str
    steps: int = 100
    delay_ms: float = 8.0

    def start(self, cluster: Bed, name: str) -> tuple["subprocess.Popen[str]", RunDirectory]:
        run = RunDirectory(cluster.storage / f"{self.module}-{name}")
        run.root.mkdir()
        process = cluster.head.popen(
            [sys.executable, str(ROOT / "tests/integration/engine_run.py"),
             self.module, str(cluster.storage), run.root.name, str(self.steps), "1"],
            {"RAY_ADDRESS": cluster.ray_address},
            cwd=ROOT / "examples",  # Ray lets the ranks import from here
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        return process, run

    def run_clean(self, cluster: Bed) -> RunDirectory:
        process, run = self.start(cluster, "clean")
        ended_well(process)
        return run


# The examples take a minute each and use the same engine: `make soak` runs them.
EXAMPLES = [
    pytest.param(Example(module), marks=pytest.mark.soak) for module in ("digits_cluster", "sequence_cluster")
]


@pytest.fixture(params=[Sdnet(), *EXAMPLES], ids=repr)
def workload(request: pytest.FixtureRequest) -> Sdnet | Example:
    chosen: Sdnet | Example = request.param
    return chosen


@contextmanager
def slow_steps(cluster: Bed, run: RunDirectory, generation: int, delay_ms: float) -> Iterator[GroupStarted]:
    """Slow the steps of this generation down, so that the fault comes before the end. Yields after a save."""
    group = wait_for(run, GroupStarted, lambda started: started.generation == generation)
    [*_, began] = times_of(run, GroupStarted)
    for host in cluster.hosts[1:]:
        host.impair_link(delay_ms)
    try:
        wait_for(run, CheckpointSaved, since=began)
        yield group
    finally:
        for host in cluster.hosts[1:]:
            host.clear_link()


def wait_for_group(run: RunDirectory, size: int, after: int) -> GroupStarted:
    """The first group of this size in a generation after `after`."""
    return wait_for(run, GroupStarted, lambda group: group.world_size == size and group.generation > after)


def rate_of_each_epoch(run: RunDirectory) -> dict[int, float]:
    """Learning rates by the step that ended the epoch."""
    return {event.step: event.lr for event in events_of(run, Epoch)}


def test_a_drained_host_costs_no_step_and_a_killed_one_a_restart_and_neither_changes_a_byte(
    cluster: Bed, clean: RunDirectory, note_seconds: NoteSeconds, workload: Sdnet | Example
) -> None:
    undisturbed = clean if isinstance(workload, Sdnet) else workload.run_clean(cluster)
    process, run = workload.start(cluster, "faulty")
    with slow_steps(cluster, run, 1, workload.delay_ms):
        drained = host_of(cluster, run, 1)
        drain(cluster, drained, seconds=60)
        wait_for(run, FailureDetected)
    with slow_steps(cluster, run, 2, workload.delay_ms) as group:
        killed = next(host for host in cluster.hosts if host.address == group.hosts[0])
        killed.kill()
    drained.kill()
    returns = [(host, cluster.bring_back(host)) for host in (drained, killed)]
    ended_well(process)

    [notice] = events_of(run, DrainNoticed)
    assert (notice.ranks, notice.hosts) == ((1,), (drained.address,))
    preempted, lost = events_of(run, FailureDetected)
    assert (preempted.kind, preempted.rank, preempted.host) == ("preempted", 1, drained.address)
    assert (lost.kind, lost.host) == ("host_lost", killed.address)
    [noticed_at], [left_at, _] = times_of(run, DrainNoticed), times_of(run, FailureDetected)
    assert notice.left_s is not None and left_at < noticed_at + notice.left_s
    note_seconds(run, noticed_at)
    groups, resumes = events_of(run, GroupStarted), events_of(run, Resumed)
    assert [len(set(group.hosts)) for group in groups] == [2, 2, 2]  # although a host has room for both ranks
    assert drained.address not in groups[1].hosts
    assert f"saved at step {resumes[0].step}" in preempted.detail
    assert checksums(run, workload.steps) == checksums(undisturbed, workload.steps)
    for host, start in returns:
        await_node(host, start)


def test_three_ranks_evaluate_a_network_as_the_two_that_trained_it_did(
    cluster: Bed, clean: RunDirectory
) -> None:
    summary = json.loads(clean.summary.read_text())
    evaluation = cluster.sdnet_orchestrate(
        "evaluate", "--checkpoint", str(clean.checkpoints / summary["checkpoint"]), "--json",
        "--data", str(clean.test_npz), "--batch", "32", "--workers", "3", "--address", "auto",
    )  # fmt: skip
    output, _ = evaluation.communicate()
    assert evaluation.returncode == 0, output
    rates = json.loads(output.splitlines()[-1])
    assert (rates["fpr95"], rates["accuracy"]) == (summary["fpr95"], summary["accuracy"])


def test_an_elastic_group_continues_on_the_remaining_host_and_takes_one_back(
    cluster: Bed, clean: RunDirectory, note_seconds: NoteSeconds
) -> None:
    cluster.hosts[3].kill()  # the last test: this host does not come back
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
    rates, undisturbed = rate_of_each_epoch(run), rate_of_each_epoch(clean)
    # A killed rank loses the events of its last 0.2 s: once when its host dies, once when the group grows.
    assert rates.items() <= undisturbed.items() and len(rates) >= len(undisturbed) - 2
    assert json.loads(run.summary.read_text())["steps"] == STEPS
