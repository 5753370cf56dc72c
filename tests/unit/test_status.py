"""`status` says where a run stands, also when its launcher was killed or the clock was set back."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.events import EventLog
from orchestrator.processes import is_alive, process_mark
from orchestrator.report.status import read_status
from orchestrator.report.summary import seconds_in
from orchestrator.run_directory import RunDirectory


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    made = RunDirectory(tmp_path / "r")
    made.create()
    return made


@pytest.fixture
def ended() -> Iterator[str]:
    """The mark of a process that has ended, whose id nobody has yet."""
    process = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    mark = process_mark(process.pid)
    process.communicate()
    yield mark


def test_a_process_is_known_by_its_start_as_well_as_its_id(ended: str) -> None:
    mine = process_mark(os.getpid())
    assert is_alive(mine) is True and is_alive(ended) is False
    assert is_alive(mine + "0") is False  # another process that got the same id
    assert process_mark(2**22 + 1) == ""


@pytest.mark.parametrize("mark", ["", "another-boot/pid:[1] 1 2", "text", "a b c d"])
def test_of_a_process_on_another_host_or_in_another_container_nothing_is_known(mark: str) -> None:
    assert is_alive(mark) is None


@pytest.mark.parametrize(("finished", "state"), [(False, "killed"), (True, "stopped")])
def test_a_run_whose_launcher_was_killed_is_not_running(
    run: RunDirectory, ended: str, finished: bool, state: str
) -> None:
    events = EventLog(run.events)
    events.emit("run_started", name="r", host="h", pid=1, process=ended)
    events.emit("stage_started", stage="train")
    if finished:
        events.emit("run_finished", status="stopped", reason="interrupted")
    assert read_status(run)["state"] == state


def test_a_run_that_is_launched_again_runs(run: RunDirectory, ended: str) -> None:
    events = EventLog(run.events)
    events.emit("run_started", name="r", host="h", pid=1, process=ended)
    events.emit("run_started", name="r", host="h", pid=2, process=process_mark(os.getpid()))
    found = read_status(run)
    assert (found["state"], found["launches"]) == ("running", 2)


def test_steps_are_those_of_the_whole_recipe_and_never_fewer_than_the_step(run: RunDirectory) -> None:
    events = EventLog(run.events)
    events.emit("run_started", name="r")
    events.emit("epoch", epoch=2, step=10, loss=0.5, lr=0.1, steps=5, seconds=1.0)
    assert (read_status(run)["step"], read_status(run)["steps"]) == (10, None)
    events.emit("progress", step=12, steps=20)
    assert (read_status(run)["step"], read_status(run)["steps"]) == (12, 20)
    events.emit("epoch", epoch=3, epochs=4, step=15, total_steps=20, loss=0.4, lr=0.1, steps=5, seconds=1.0)
    found = read_status(run)
    assert (found["epoch"], found["epochs"], found["step"], found["steps"]) == (3, 4, 15, 20)
    events.emit("resumed", checkpoint="step_00000010", step=10)
    assert read_status(run)["step"] == 10


def test_a_clock_that_was_set_back_gives_no_negative_age(run: RunDirectory) -> None:
    EventLog(run.events).emit("run_started", name="r")
    assert read_status(run, now=1.0)["last_event_s_ago"] == 0.0


def test_seconds_of_a_stage_are_measured_and_never_negative_after_the_clock_was_set_back() -> None:
    began = {"t": 1000.0, "event": "stage_started", "stage": "train"}
    ended = {"t": 400.0, "event": "stage_finished", "stage": "train"}
    assert seconds_in([began, {**ended, "seconds": 12.5}], "train") == 12.5
    assert seconds_in([began, ended], "train") == 0.0
    assert seconds_in([began, {"t": 400.0, "event": "run_finished"}], "train") == 0.0
