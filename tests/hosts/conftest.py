"""A cluster for launches with faults, and the clean run to which their runs are compared."""

from collections.abc import Iterator

import pytest

from orchestrator.job.run_directory import RunDirectory
from tests.hosts.bed import Bed, bed
from tests.hosts.jobs import run_clean
from tests.hosts.test_bed import QUICK_TO_NOTICE
from tests.ray_leftovers import held_in_vain


@pytest.fixture(scope="module")
def cluster() -> Iterator[Bed]:
    """A head without ranks, and three hosts with room for two ranks each; a test must restore it.

    The jobs allow one rank on each host.
    """
    with bed(4, QUICK_TO_NOTICE) as made:
        made.head.ray_options = ("--num-cpus=0",)
        for host in made.hosts[1:]:
            host.ray_options = ("--num-cpus=2",)
        made.start_ray()
        yield made
        assert held_in_vain(made.ask_ray) == []


@pytest.fixture(scope="module")
def clean(cluster: Bed) -> RunDirectory:
    """The job of `jobs.launch` with two ranks and without faults."""
    return run_clean(cluster)
