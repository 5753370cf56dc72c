"""The whole demo, and a job that loses a host, on two sshfs mounts: the same bytes as on a local disk."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
import yaml

from orchestrator.job.demo import demo_spec
from orchestrator.telemetry.events import FailureDetected
from tests.hosts.bed import Bed
from tests.hosts.jobs import ended_well
from tests.hosts.network import why_impossible as why_no_hosts
from tests.hosts.test_bed import QUICK_TO_NOTICE
from tests.integration.jobs import weights
from tests.launching import NoteSeconds, events_of, wait_for, wait_for_checkpoint
from tests.mounts.export import Export, why_impossible
from tests.mounts.hosts import bed_on_mounts, local_storage, on_the_server

_REASON = why_impossible() or why_no_hosts()
pytestmark = [
    pytest.mark.mounts,
    pytest.mark.hosts,
    pytest.mark.integration,
    pytest.mark.soak,
    pytest.mark.skipif(bool(_REASON), reason=_REASON or "-"),
]

EPOCHS = 8
JOB = """
name: {name}
cluster: {{address: auto, workers: 2, workers_per_host: 1, cache: {{path: {disk}}}}}
data:
  synthetic: {{pairs: 16, scenes: 4}}
  patches: {{per_pair: 6}}
  split: {{train: 0.5}}
train: {{recipe: demo, epochs: 8, batch: 8}}
checkpoint: {{every_s: 0, keep: 2}}
evaluate: {{every_epochs: 8, batch: 32}}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bed, Export]]:
    with bed_on_mounts(tmp_path_factory.mktemp("mounts"), (1, 1), QUICK_TO_NOTICE) as both:
        yield both


def test_a_host_killed_on_mounts_costs_no_byte(made: tuple[Bed, Export], note_seconds: NoteSeconds) -> None:
    cluster, export = made
    job = JOB.format(name="killed", disk=cluster.head.disk)
    undisturbed, clean = replace(cluster, storage=local_storage(cluster)).launch(job)
    ended_well(undisturbed)
    process, run = cluster.launch(job)
    served = on_the_server(export, run)
    wait_for_checkpoint(served, 4)
    victim = cluster.hosts[2]
    victim.kill()
    failure = wait_for(served, FailureDetected)
    cluster.restart(victim)
    ended_well(process)
    assert (failure.kind, failure.host) == ("host_lost", victim.address)
    assert len(events_of(served, FailureDetected)) == 1
    assert weights(served, 3 * EPOCHS) == weights(clean, 3 * EPOCHS)


def test_the_whole_demo_on_mounts_ends_with_the_bytes_of_a_local_disk(made: tuple[Bed, Export]) -> None:
    cluster, export = made
    summaries = []
    for bed, root in (
        (replace(cluster, storage=local_storage(cluster)), local_storage(cluster)),
        (cluster, export.directory),
    ):
        values = demo_spec(str(bed.storage)).values()
        values["cluster"] |= {"address": "auto", "cache": {"path": str(cluster.head.disk), "limit_gb": 1.0}}
        del values["storage"]
        process, run = bed.launch(yaml.safe_dump(values))
        ended_well(process)
        summaries.append(json.loads((root / run.root.name / "summary.json").read_text()))
    local, mounted = summaries
    assert mounted["status"] == "succeeded" and mounted["steps"] == 60
    keys = ("checkpoint_sha256", "weights_sha256", "fpr95", "accuracy", "loss")
    assert {key: mounted[key] for key in keys} == {key: local[key] for key in keys}
