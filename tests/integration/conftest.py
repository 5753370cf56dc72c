"""A check after each test that uses the Ray cluster."""

from collections.abc import Iterator

import pytest

from tests.integration.ray_node import RayCluster
from tests.ray_leftovers import held_in_vain


@pytest.fixture(autouse=True)
def ray_holds_nothing_in_vain(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that uses the cluster when an actor or a placement group remains after it."""
    yield
    if "ray_cluster" in request.fixturenames:
        cluster: RayCluster = request.getfixturevalue("ray_cluster")
        assert held_in_vain(cluster.output_of) == []
