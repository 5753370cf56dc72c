"""A Ray cluster on this machine, started as users start one, and the clean run of the launch tests."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.job.run_directory import RunDirectory
from tests.integration.jobs import job_file
from tests.integration.ray_node import RayCluster, running_node
from tests.ray_leftovers import held_in_vain


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    with running_node(tmp_path_factory.mktemp("home")) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def ray_holds_nothing_in_vain(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that uses the cluster when an actor or a placement group remains after it."""
    yield
    if "ray_cluster" in request.fixturenames:
        cluster: RayCluster = request.getfixturevalue("ray_cluster")
        assert held_in_vain(cluster.output_of) == []


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="session")
def submitted(ray_cluster: RayCluster, storage: Path) -> subprocess.CompletedProcess[str]:
    """The clean run, through `ray job submit`."""
    return ray_cluster.submit_launch(job_file(storage, "clean"))


@pytest.fixture(scope="session")
def clean(submitted: subprocess.CompletedProcess[str], storage: Path) -> RunDirectory:
    assert submitted.returncode == 0, submitted.stdout[-3000:] + submitted.stderr[-3000:]
    return RunDirectory(storage / "clean")
