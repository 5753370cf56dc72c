"""A whole job on two sshfs mounts of one export: the launcher on the first, the ranks on the second."""

import json
import subprocess
import time
from collections.abc import Iterator

import pytest

from orchestrator.job.run_directory import RunDirectory
from tests.hosts.bed import Bed
from tests.hosts.jobs import ended_well
from tests.hosts.network import why_impossible as why_no_hosts
from tests.integration.jobs import STEPS, weights
from tests.launching import wait_for_checkpoint
from tests.mounts.export import Export, why_impossible
from tests.mounts.hosts import bed_on_mounts, on_the_server

_REASON = why_impossible() or why_no_hosts()
pytestmark = [
    pytest.mark.mounts,
    pytest.mark.hosts,
    pytest.mark.integration,
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
recovery: {{storage_timeout_s: {timeout_s}}}
"""
EPOCHS = 2  # as in the clean run, which has the same bytes
_AWAY_S = 20.0
_PATIENT_S, _TIMEOUT_S = 120, 20  # recovery.storage_timeout_s: longer than the server is away, or not
# A try to save comes every four seconds; the launcher's last events and its exit take some, too.
_END_WITHIN_S = 40.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bed, Export]]:
    with bed_on_mounts(tmp_path_factory.mktemp("mounts"), (2,)) as both:
        yield both


@pytest.fixture(scope="module")
def cluster(made: tuple[Bed, Export]) -> Bed:
    return made[0]


@pytest.fixture(scope="module")
def export(made: tuple[Bed, Export]) -> Export:
    return made[1]


def launch(
    cluster: Bed, name: str, epochs: int = EPOCHS, timeout_s: int = _PATIENT_S
) -> tuple["subprocess.Popen[str]", RunDirectory]:
    return cluster.launch(JOB.format(name=name, disk=cluster.head.disk, epochs=epochs, timeout_s=timeout_s))


def copies_on(cluster: Bed) -> set[str]:
    """Names of the copies on the own disk of the ranks' host."""
    folders = cluster.hosts[1].directory.glob("sdnet-cache-*")
    return {
        path.name
        for folder in folders
        for path in folder.glob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def test_a_job_on_two_mounts_whose_server_is_killed_for_20_s_ends_well_with_the_bytes_of_a_local_disk(
    cluster: Bed, export: Export, clean: RunDirectory
) -> None:
    process, run = launch(cluster, "mounted")
    wait_for_checkpoint(on_the_server(export, run), 3)
    with export.server_away():
        time.sleep(_AWAY_S)  # the fault itself
    ended_well(process)
    summary = json.loads(on_the_server(export, run).summary.read_text())
    assert (summary["status"], summary["steps"]) == ("succeeded", STEPS)
    assert weights(on_the_server(export, run)) == weights(clean)
    files = json.loads(run.manifest.read_text())["files"]
    assert copies_on(cluster) == {files[name]["sha256"] for name in ("train.npz", "test.npz")}


@pytest.mark.soak
def test_a_server_that_never_comes_back_ends_the_launch_with_one_line_within_its_time_out(
    cluster: Bed, export: Export
) -> None:
    """Training continues for the time-out without storage, then the failed group waits for it once more."""
    process, run = launch(cluster, "lost", epochs=4000, timeout_s=_TIMEOUT_S)
    wait_for_checkpoint(on_the_server(export, run), 3)
    with export.server_away():
        began = time.monotonic()
        output, _ = process.communicate(timeout=200)
    assert time.monotonic() - began < 2 * _TIMEOUT_S + _END_WITHIN_S
    assert process.returncode == 1 and "Traceback" not in output
    last = output.splitlines()[-1]
    assert last.startswith("sdnet-orchestrate: training stopped: the checkpoint of step ")
    assert f"storage did not come back within {_TIMEOUT_S} s" in last and str(run.root) in last
