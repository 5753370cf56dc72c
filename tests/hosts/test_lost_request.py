"""Ray loses the requests that place a group; the group still starts."""

import json

import pytest

from orchestrator.telemetry.events import FailureDetected, GroupStarting
from tests.hosts.bed import bed
from tests.hosts.jobs import ended_well
from tests.hosts.network import why_impossible
from tests.hosts.test_bed import QUICK_TO_NOTICE
from tests.launching import events_of

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.integration,
    pytest.mark.soak,
    pytest.mark.skipif(bool(why_impossible()), reason=why_impossible() or "-"),
]

# Ray's own means of testing: the first two requests, one to each of two hosts, never arrive.
LOSES_TWO_REQUESTS = {
    "RAY_testing_rpc_failure": json.dumps(
        {
            "NodeManagerService.grpc_client.PrepareBundleResources": {
                "num_failures": 2,
                "req_failure_prob": 100,
                "resp_failure_prob": 0,
                "in_flight_failure_prob": 0,
            }
        }
    ),
    "RAY_testing_rpc_failure_avoid_intra_node_failures": "0",
}
JOB = """
name: unheard
cluster: {address: auto, workers: 2, workers_per_host: 1}
data: {synthetic: {pairs: 16, scenes: 4}, patches: {per_pair: 6}, split: {train: 0.5}}
train: {recipe: demo, epochs: 1, batch: 8}
evaluate: {every_epochs: 1, batch: 32}
"""


def test_a_group_starts_on_hosts_that_ray_believes_busy_after_a_lost_request() -> None:
    with bed(3, QUICK_TO_NOTICE | LOSES_TWO_REQUESTS) as cluster:
        cluster.start_ray()
        process, run = cluster.launch(JOB)
        ended_well(process)
        [gcs_log] = cluster.head.directory.glob("ray/session_2*/logs/gcs_server.out")
        assert gcs_log.read_text().count("Failed to lease resource") == 2
        assert len(events_of(run, GroupStarting)) == 1
        assert not events_of(run, FailureDetected)
