"""Any MindSpore function runs data-parallel under Ray Train with our backend."""

import ast

import pytest

from tests.integration.ray_node import ROOT, RayCluster

pytestmark = pytest.mark.integration


def test_the_example_trains_to_equal_weights_on_both_ranks_and_is_short(ray_cluster: RayCluster) -> None:
    example = ROOT / "examples" / "data_parallel.py"
    joined = {"RAY_ADDRESS": ray_cluster.address, "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25"}
    cluster = RayCluster(ray_cluster.address, ray_cluster.dashboard, ray_cluster.environment | joined)
    done = cluster.run("python", str(example))
    assert done.returncode == 0, done.stderr[-3000:]
    told = [
        line.partition("weights by rank: ")[2]
        for line in done.stdout.splitlines()
        if "weights by rank" in line
    ]
    assert told
    for one, other in (ast.literal_eval(line) for line in told):
        assert one == other
    assert ast.literal_eval(told[-1])[0] == pytest.approx(3.0, abs=0.01)
