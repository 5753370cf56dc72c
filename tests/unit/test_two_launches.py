"""Two launches of one run, in real processes: one owner at any time; the other launch names the owner."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.engine.checkpoints import newest_valid, step_of
from orchestrator.job.run_directory import RunDirectory
from orchestrator.report.status import read_status
from orchestrator.storage.lease import seconds_since_boot
from orchestrator.telemetry.events import Progress, RunFinished, RunStarted
from orchestrator.telemetry.record import EventReader
from orchestrator.telemetry.state import read_state
from tests.launching import events_of, wait_for
from tests.unit.owner_stand_in import TIMES

Launch = Callable[[int], "subprocess.Popen[str]"]
# Steps of the second launch: none of the first one comes so far.
SECOND = 1_000_000


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "j")


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Launches the job in a process of its own; all of them are gone after the test."""
    job = tmp_path / "job.yaml"
    job.write_text(f"name: j\nstorage: {tmp_path}\ntrain: {{recipe: demo, batch: 8}}\n")
    processes: list[subprocess.Popen[str]] = []

    def start(first_step: int) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "tests.unit.owner_stand_in", str(job), str(first_step)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def wait_until_silent(run: RunDirectory) -> None:
    """Until the newest heartbeat is too old for its owner to trust it."""
    [heartbeat] = run.root.glob("lease/*.heartbeat")
    while seconds_since_boot() - json.loads(heartbeat.read_text())["at"] < TIMES.trusted_s:
        time.sleep(0.01)


def wait_for_second(run: RunDirectory) -> None:
    wait_for(run, Progress, lambda progress: progress.step > SECOND)


def test_a_launch_that_was_stopped_past_its_lease_wakes_up_and_writes_nothing_that_is_read(
    run: RunDirectory, launch: Launch, tmp_path: Path
) -> None:
    first = launch(0)
    wait_for(run, Progress)
    first.send_signal(signal.SIGSTOP)
    stopped_at = time.time()
    wait_until_silent(run)
    second = launch(SECOND)
    wait_for_second(run)
    state_of_first = (run.states / "000001.json").read_bytes()

    first.send_signal(signal.SIGCONT)
    _, lines = first.communicate()
    assert first.returncode == 4
    [owner] = [event.pid for event in events_of(run, RunStarted) if event.pid != first.pid]
    assert owner == second.pid
    assert re.fullmatch(
        rf"sdnet-orchestrate: lost the run {run.root} to process {second.pid} on {os.uname().nodename} since "
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d: this launch gave no sign of life for too long; it ends and writes "
        "nothing more, and the other one continues",
        lines.splitlines()[-1],
    )
    assert not run.summary.exists() and not run.events.exists() and not run.report.exists()
    assert read_status(run)["state"] == "running"

    (tmp_path / "finish").touch()
    assert second.wait() == 0
    late = [
        r for r in EventReader(run.storage).read() if isinstance(r.event, Progress) and r.event.step < SECOND
    ]
    assert all(recorded.t <= stopped_at for recorded in late)
    assert [event.status for event in events_of(run, RunFinished)] == ["succeeded"]
    assert json.loads(run.summary.read_text())["status"] == "succeeded"
    name, _, corrupt = newest_valid(run.storage)
    assert name is not None and step_of(name) > SECOND and not corrupt
    assert read_state(run.storage).saved == name
    assert read_state(run.storage).lease == 2 and b'"lease": 1' in state_of_first


def test_the_second_launch_is_refused_and_a_killed_ones_run_is_taken_at_once(
    run: RunDirectory, launch: Launch, tmp_path: Path
) -> None:
    first = launch(0)
    wait_for(run, Progress)
    second = launch(SECOND)
    _, lines = second.communicate()
    assert second.returncode == 2
    assert re.fullmatch(
        rf"sdnet-orchestrate: {run.root} is being run by process {first.pid} on {os.uname().nodename} since "
        r"[-\d]+ [:\d]+; wait for it, stop it, or give this job another `name`\n",
        lines,
    )
    first.kill()
    third = launch(SECOND)  # the first one is not even waited for
    wait_for_second(run)
    (tmp_path / "finish").touch()
    _, lines = third.communicate()
    assert third.returncode == 0 and "taken over" not in lines
    assert len(events_of(run, RunStarted)) == 2
