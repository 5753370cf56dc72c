"""Any MindSpore function runs data-parallel under Ray Train with our backend."""

import re
from dataclasses import replace

import pytest

from tests.integration.ray_node import ROOT, RayCluster

pytestmark = pytest.mark.integration

EXAMPLE = ROOT / "examples" / "data_parallel.py"


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 30


def test_the_example_trains_to_equal_weights_on_both_ranks(ray_cluster: RayCluster) -> None:
    environment = {**ray_cluster.environment, "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25"}
    cluster = replace(ray_cluster, environment=environment)
    done = cluster.run("python", str(EXAMPLE))
    assert done.returncode == 0, done.stderr[-3000:]
    weights = dict(re.findall(r"rank (\d) weight (\S+)", done.stdout))
    assert set(weights) == {"0", "1"} and weights["0"] == weights["1"]
    assert float.fromhex(weights["0"]) == pytest.approx(3.0, abs=0.01)
