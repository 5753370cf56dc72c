"""A launch and its whole group stop past the lease, another launch takes the run over, and the first wakes up."""

import json
import time
from pathlib import Path

import psutil
import pytest

from orchestrator.job.run_directory import RunDirectory
from orchestrator.telemetry.events import Fenced, RunFinished, RunStarted
from tests.integration.jobs import launch, pid_of, stopped, succeeded, weights
from tests.integration.ray_node import RayCluster
from tests.launching import NoteSeconds, events_of, wait_for, wait_for_checkpoint

pytestmark = pytest.mark.integration

# The real command line with a lease that runs out in seconds instead of a minute.
TIMEOUT_S = 5.0
SHORT_LEASE = f"""
import functools
from orchestrator.job import launch
from orchestrator.storage.lease import LeaseTimes
launch.owned = functools.partial(launch.owned, times=LeaseTimes(renew_every_s=0.5, timeout_s={TIMEOUT_S}))
"""


def group_of(run: RunDirectory) -> list[psutil.Process]:
    """The controller and both ranks of the first group."""
    ranks = [psutil.Process(pid_of(run, rank)) for rank in (0, 1)]
    parent = ranks[0].parent()
    assert parent is not None
    [controller] = [
        process for process in parent.children() if "GroupController" in " ".join(process.cmdline())
    ]
    return [controller, *ranks]


def wait_until_silent(run: RunDirectory) -> None:
    """Wait until the first launch's heartbeat is so old that a second launch may doubt it."""
    while time.monotonic() - json.loads((run.root / "lease/000001.heartbeat").read_text())["at"] < TIMEOUT_S:
        time.sleep(0.05)


def files_of(run: RunDirectory, pids: set[int]) -> dict[Path, bytes]:
    """The events and the state that these processes have written."""
    segments = [
        path for path in run.root.glob("events/*/*/*") if int(path.parent.name.split("-")[-2]) in pids
    ]
    return {path: path.read_bytes() for path in (*segments, run.states / "000001.json")}


# `tests/unit/test_two_launches.py` does the same with stand-ins for the group.
@pytest.mark.soak
def test_a_group_that_wakes_up_after_another_launch_took_its_run_writes_nothing_and_reports_it(
    ray_cluster: RayCluster, clean: RunDirectory, storage: Path, note_seconds: NoteSeconds
) -> None:
    first, run = launch(ray_cluster, storage, "taken", python=SHORT_LEASE)
    wait_for_checkpoint(run, 2)
    group = group_of(run)
    paused = [psutil.Process(first.pid), *group]
    with stopped(paused):
        stopped_at = time.time()
        written = files_of(run, {process.pid for process in paused})
        wait_until_silent(run)
        second, _ = launch(ray_cluster, storage, "taken", python=SHORT_LEASE)
        owner = wait_for(run, RunStarted, lambda started: started.pid == second.pid)
        # It has killed the ranks and waits for the CPUs of the first group.
        wait_for(run, Fenced, since=stopped_at)
    output, _ = first.communicate()
    assert first.returncode == 4 and "Traceback" not in output
    said = [line for line in output.splitlines() if line.startswith("sdnet-orchestrate: ")]
    lost = f"sdnet-orchestrate: lost the run {run.root} to process {owner.pid} on {owner.host} since "
    assert [line.startswith(lost) for line in said] == [True], said
    succeeded(second)
    note_seconds(run, stopped_at)
    psutil.wait_procs(group)
    assert files_of(run, {process.pid for process in paused}) == written
    assert [event.status for event in events_of(run, RunFinished)] == ["succeeded"]
    assert weights(run) == weights(clean)
