"""A Ray cluster on this machine, started as users start one, and the clean run that other runs are compared with."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.job.run_directory import RunDirectory
from tests.integration.jobs import job_file
from tests.integration.ray_node import RayCluster, running_node

__all__ = ["clean", "ray_cluster", "storage", "submitted"]


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    with running_node(tmp_path_factory.mktemp("home")) as cluster:
        yield cluster


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
