"""A whole job on two sshfs mounts of one export: the launcher on the first, the ranks on the second."""

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from orchestrator.job.run_directory import RunDirectory
from orchestrator.telemetry.events import FirstStep
from tests.hosts.bed import Bed, bed
from tests.hosts.jobs import ended_well
from tests.hosts.network import why_impossible as why_no_hosts
from tests.integration.jobs import weights
from tests.launching import wait_for, wait_for_checkpoint
from tests.mounts.export import Export, exported, why_impossible

_REASON = why_impossible() or why_no_hosts()
pytestmark = [
    pytest.mark.mounts,
    pytest.mark.hosts,
    pytest.mark.integration,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(_REASON), reason=_REASON or "-"),
]

JOB = """
name: {name}
cluster: {{address: auto, workers: 2, cache: {{path: {disk}}}}}
data:
  synthetic: {{pairs: 16, scenes: 4}}
  patches: {{per_pair: 6}}
  split: {{train: 0.5}}
train: {{recipe: demo, epochs: {epochs}, batch: 8}}
checkpoint: {{every_s: 0, keep: 2}}
evaluate: {{every_epochs: {epochs}, batch: 32}}
"""
EPOCHS, LONG = 2, 40
_AWAY_S = 20.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Bed]:
    """A head that only leads, and a host for two ranks."""
    with bed(2) as made:
        made.head.ray_options = ("--num-cpus=0",)
        made.hosts[1].ray_options = ("--num-cpus=2",)
        yield made


@pytest.fixture(scope="module")
def export(cluster: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Export]:
    """The shared storage of the cluster: the head sees the first mount at its path, the ranks' host the second."""
    with exported(tmp_path_factory.mktemp("mounts"), first=cluster.storage) as made:
        cluster.hosts[1].views[cluster.storage] = made.second
        cluster.start_ray()
        yield made


def launch(cluster: Bed, name: str, epochs: int = EPOCHS) -> tuple["subprocess.Popen[str]", RunDirectory]:
    return cluster.launch(JOB.format(name=name, disk=cluster.head.disk, epochs=epochs))


def on_the_server(export: Export, run: RunDirectory) -> RunDirectory:
    """The run as the server has it: a mount shows what is new up to 20 s later."""
    return RunDirectory(export.directory / run.root.name)


@pytest.fixture(scope="module")
def clean(cluster: Bed, export: Export) -> RunDirectory:
    """The job on a local disk that all hosts see."""
    local = cluster.storage.with_name("local")
    local.mkdir()
    process, run = launch(replace(cluster, storage=local), "clean")
    ended_well(process)
    return run


def copies_on(cluster: Bed) -> set[str]:
    """Names of the copies on the own disk of the ranks' host."""
    folders = cluster.hosts[1].directory.glob("sdnet-cache-*")
    return {
        path.name
        for folder in folders
        for path in folder.glob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def test_a_job_on_mounts_ends_with_the_same_bytes_as_on_a_local_disk(
    cluster: Bed, export: Export, clean: RunDirectory
) -> None:
    assert copies_on(cluster) == set()
    process, run = launch(cluster, "mounted")
    ended_well(process)
    assert weights(run, 3 * EPOCHS) == weights(clean, 3 * EPOCHS)
    files = json.loads(run.manifest.read_text())["files"]
    assert copies_on(cluster) == {files[name]["sha256"] for name in ("train.npz", "test.npz")}


@pytest.mark.soak
def test_a_server_that_is_away_for_a_while_costs_no_bytes(
    cluster: Bed, export: Export, clean: RunDirectory
) -> None:
    undisturbed, expected = launch(replace(cluster, storage=clean.root.parent), "long", LONG)
    ended_well(undisturbed)
    process, run = launch(cluster, "away", LONG)
    wait_for_checkpoint(on_the_server(export, run), 3)
    with export.server_away():
        time.sleep(_AWAY_S)
    ended_well(process)
    assert weights(run, 3 * LONG) == weights(expected, 3 * LONG)


@pytest.mark.soak
def test_a_server_that_never_comes_back_ends_the_launch_with_one_line(
    cluster: Bed, export: Export, clean: RunDirectory
) -> None:
    process, run = launch(cluster, "lost", 100 * LONG)
    wait_for(on_the_server(export, run), FirstStep)
    with export.server_away():
        output, _ = process.communicate(timeout=200)
    assert process.returncode == 1 and "Traceback" not in output
    assert str(cluster.storage) in output.splitlines()[-1]
