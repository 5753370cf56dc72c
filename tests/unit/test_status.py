"""`status` shows the state of a run, also when its launcher was killed or the clock was set back."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from orchestrator.job.run_directory import RunDirectory
from orchestrator.process_identity import process_mark
from orchestrator.report.status import read_status
from orchestrator.report.summary import seconds_in
from orchestrator.storage.lease import Clock, Lease, Owner, seconds_since_boot, take
from orchestrator.telemetry.events import (
    Epoch,
    Progress,
    Resumed,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
)
from orchestrator.telemetry.record import EventWriter
from tests.unit.engine.fakes import VirtualClock
from tests.unit.histories import epoch, put_old_run, record, recorded

HERE = socket.gethostname()
ME = Owner(id="me", host=HERE, pid=os.getpid(), mark=process_mark(os.getpid()), since=0.0)
STARTED = RunStarted(run="r", host=HERE, pid=os.getpid())
STOPPED = RunFinished(status="stopped", reason="interrupted")


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    made = RunDirectory(tmp_path / "r")
    made.create()
    return made


@pytest.fixture
def ended() -> Iterator[Owner]:
    """An ended process whose id is not reused yet."""
    process = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    mark = process_mark(process.pid)
    process.communicate()
    yield Owner(id="it", host=HERE, pid=process.pid, mark=mark, since=0.0)


class HostClock(VirtualClock):
    """Virtual time that begins with this host's clock, by which heartbeats are dated."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = seconds_since_boot()


def own(run: RunDirectory, owner: Owner, *, ended: bool = False) -> Lease:
    """Make this owner the newest one; the one before it is silent or has ended."""
    clock = HostClock()
    lease = take(run.storage, owner, clock=Clock(clock.now, clock.wait))
    lease.renew(1, seconds_since_boot(), ended)
    return lease


def state_now(run: RunDirectory, clock: VirtualClock | None = None) -> str:
    clock = clock or HostClock()
    return str(read_status(run, clock=Clock(clock.now, clock.wait))["state"])


def state_of(run: RunDirectory, owner: Owner, *, ended: bool = False) -> str:
    own(run, owner, ended=ended)
    return state_now(run)


def test_a_run_without_events_has_not_started(run: RunDirectory) -> None:
    found = read_status(run)
    assert (found["state"], found["stage"], found["last_event_s_ago"]) == ("not started", None, None)


def test_a_run_whose_launcher_was_killed_is_not_running(run: RunDirectory, ended: Owner) -> None:
    record(run.storage, RunStarted(run="r", host=HERE, pid=ended.pid), StageStarted(stage="train"))
    assert state_of(run, ended) == "killed"
    assert read_status(run)["stage"] == "train"


def test_a_launcher_whose_id_another_process_has_now_is_gone(run: RunDirectory) -> None:
    record(run.storage, STARTED)
    where, pid, started = ME.mark.rsplit(" ", 2)
    assert state_of(run, replace(ME, mark=f"{where} {pid} {int(started) - 1}")) == "killed"
    assert state_of(run, ME) == "running"


def test_the_owner_is_named(run: RunDirectory) -> None:
    own(run, replace(ME, host="h7", pid=12, since=time.mktime((2026, 5, 4, 3, 2, 1, 0, 0, -1))))
    assert read_status(run)["owner"] == "process 12 on h7 since 2026-05-04 03:02:01"


def test_a_launcher_on_another_host_runs_while_its_heartbeat_changes_and_is_silent_otherwise(
    run: RunDirectory, ended: Owner
) -> None:
    record(run.storage, STARTED)
    elsewhere = replace(ended, mark="another boot " + ended.mark)
    lease, clock = own(run, elsewhere), HostClock()
    clock.at(2.0, lambda: lease.renew(2, 17.0))
    assert state_now(run, clock) == "running"
    assert state_now(run, clock) == "silent"


def test_a_launcher_that_is_stopped_is_silent_on_its_own_host_too(run: RunDirectory) -> None:
    record(run.storage, STARTED)
    own(run, ME).renew(2, seconds_since_boot() - 31)
    assert state_now(run) == "silent"


def test_a_launch_that_ended_says_how(run: RunDirectory, ended: Owner) -> None:
    record(run.storage, STARTED, StageStarted(stage="train"), STOPPED)
    assert state_of(run, ME, ended=True) == "stopped" and read_status(run)["stage"] is None
    # The launcher was killed after its last event, before it could give the run back.
    assert state_of(run, ended) == "stopped"
    # The next launch owns the run already; its first event is still on its way.
    assert state_of(run, ME) == "running"


def test_a_launch_that_could_not_write_its_end_has_failed(run: RunDirectory) -> None:
    record(run.storage, STARTED)
    assert state_of(run, ME, ended=True) == "failed"


def test_a_run_whose_data_were_made_and_that_was_not_launched_has_not_started(run: RunDirectory) -> None:
    assert state_of(run, ME, ended=True) == "not started"


def test_a_launcher_that_was_killed_before_its_first_event_is_known_from_its_lease(
    run: RunDirectory, ended: Owner
) -> None:
    assert state_of(run, ended) == "killed"


def test_a_run_that_is_launched_again_runs(run: RunDirectory, ended: Owner) -> None:
    record(run.storage, RunStarted(run="r", host=HERE, pid=ended.pid), STOPPED, STARTED)
    own(run, ended)
    assert state_of(run, ME) == "running"
    assert read_status(run)["launches"] == 2


def test_a_run_of_version_1_is_shown_from_its_events_alone(run: RunDirectory, ended: Owner) -> None:
    put_old_run(run.storage)
    found = read_status(run)
    assert (found["state"], found["launches"]) == ("running", 1)  # its launcher was on another host
    assert (found["epoch"], found["epochs"], found["step"], found["steps"]) == (1, 2, 3, 6)
    line = f'{{"t": 6, "event": "run_started", "name": "r", "host": "{HERE}", "pid": {ended.pid}}}\n'
    with run.events.open("a") as file:
        file.write(line)
    assert read_status(run)["state"] == "killed"


@pytest.mark.parametrize(
    ("happened", "step", "steps"),
    [
        ((epoch(2, 10),), 10, None),
        ((epoch(2, 10), Progress(step=12, steps=20)), 12, 20),
        ((Progress(step=12, steps=20), Progress(step=13)), 13, 20),
        ((epoch(3, 15, epochs=4, total_steps=20),), 15, 20),
        ((epoch(3, 15, total_steps=20), Resumed(checkpoint="step_00000010", step=10)), 10, 20),
    ],
)
def test_steps_are_those_of_the_whole_recipe_and_never_fewer_than_the_step(
    run: RunDirectory, happened: tuple[Epoch | Progress | Resumed, ...], step: int, steps: int | None
) -> None:
    record(run.storage, STARTED, *happened)
    found = read_status(run)
    assert (found["step"], found["steps"]) == (step, steps)


def test_rates_of_an_earlier_epoch_stay_until_there_are_newer_ones(run: RunDirectory) -> None:
    record(run.storage, epoch(1, 3, fpr95=0.25, accuracy=0.9), epoch(2, 6, loss=0.4))
    found = read_status(run)
    assert (found["loss"], found["fpr95"], found["accuracy"]) == (0.4, 0.25, 0.9)


def test_a_clock_that_was_set_back_gives_no_negative_age(run: RunDirectory) -> None:
    record(run.storage, STARTED)
    assert read_status(run, now=1.0)["last_event_s_ago"] == 0.0


def test_seconds_of_a_stage_are_measured_and_never_negative_after_the_clock_was_set_back() -> None:
    began = (1000.0, StageStarted(stage="train"))
    measured, unmeasured = StageFinished(stage="train", seconds=12.5), StageFinished(stage="train")
    assert seconds_in(recorded(began, (400.0, measured)), "train") == 12.5
    assert seconds_in(recorded(began, (400.0, unmeasured)), "train") == 0.0
    assert seconds_in(recorded(began, (400.0, STOPPED)), "train") == 0.0


def test_seconds_of_a_stage_are_the_sum_over_all_launches() -> None:
    history = recorded(
        (0.0, StageStarted(stage="preprocess")),
        (3.0, StageFinished(stage="preprocess", seconds=2.5)),
        (3.0, StageStarted(stage="train")),
        (10.0, STOPPED),
        (20.0, StageStarted(stage="train")),
        (22.0, epoch(1, 3, evaluate_s=0.5)),
        (23.0, epoch(2, 6, evaluate_s=0.25)),
        (25.0, StageFinished(stage="train")),
    )
    seconds = {stage: seconds_in(history, stage) for stage in ("preprocess", "train", "evaluate")}
    assert seconds == {"preprocess": 2.5, "train": 12.0, "evaluate": 0.75}
    assert seconds_in(history[:1], "train") is None and seconds_in(history[:1], "evaluate") is None


def test_the_newest_launch_decides_although_the_clock_of_an_earlier_ones_host_was_an_hour_ahead(
    run: RunDirectory, ended: Owner
) -> None:
    for lease, at, status in ((1, 1e9 + 3600, "failed"), (2, 1e9, "succeeded")):
        with EventWriter(run.storage, partial(float, at)) as events:
            events.record(replace(STARTED, lease=lease))
            events.record(RunFinished(status=status, lease=lease))
    assert state_of(run, ended) == "succeeded"
