"""A launch over hosts goes on when one of them dies."""

import json

import pytest

from orchestrator.telemetry.events import FailureDetected, GroupStarted
from tests.hosts.bed import bed
from tests.hosts.network import why_impossible
from tests.hosts.test_bed import QUICK_TO_NOTICE
from tests.launching import events_of, wait_for, wait_for_checkpoint

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.integration,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(why_impossible()), reason=why_impossible() or "-"),
]

JOB = """
name: survivor
cluster: {address: auto, workers: 2, workers_per_host: 1}
data:
  synthetic: {pairs: 16, scenes: 4}
  patches: {per_pair: 6}
  split: {train: 0.5}
train: {recipe: demo, epochs: 4, batch: 8}
checkpoint: {every_s: 0, keep: 2}
evaluate: {every_epochs: 4, batch: 32}
"""


def test_a_host_that_dies_is_replaced_and_when_it_is_back_all_three_rate_the_network_the_same() -> None:
    with bed(3, QUICK_TO_NOTICE) as cluster:
        cluster.start_ray()
        process, run = cluster.launch(JOB)
        first = wait_for(run, GroupStarted)
        wait_for_checkpoint(run, 2)
        victim = next(
            host for host in cluster.hosts if host.address in first.hosts and host is not cluster.head
        )
        victim.kill()
        output, _ = process.communicate()
        assert process.returncode == 0, output
        first_failure = events_of(run, FailureDetected)[0]
        assert first_failure.kind == "host_lost" and first_failure.host == victim.address
        last = events_of(run, GroupStarted)[-1]
        assert last.world_size == 2 and victim.address not in last.hosts
        summary = json.loads(run.summary.read_text())
        assert summary["status"] == "succeeded" and summary["restarts"] >= 1
        cluster.restart(victim)
        evaluation = cluster.sdnet_orchestrate(
            "evaluate", "--checkpoint", str(run.checkpoints / summary["checkpoint"]), "--json",
            "--data", str(run.test_npz), "--batch", "32", "--workers", "3", "--address", "auto",
        )  # fmt: skip
        output, _ = evaluation.communicate()
        assert evaluation.returncode == 0, output
        rates = json.loads(output.splitlines()[-1])
        assert (rates["fpr95"], rates["accuracy"]) == (summary["fpr95"], summary["accuracy"])
