"""The next generation starts when the ranks of the last are gone, wherever anybody can look."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import psutil
import pytest
import ray

from orchestrator.ascend.fence import RUN_VARIABLE
from orchestrator.events import EventLog
from orchestrator.every_host import Answer
from orchestrator.processes import start_ticks
from orchestrator.recovery.failures import FailureKind, classify
from orchestrator.run_directory import RunDirectory
from orchestrator.training import fencing
from orchestrator.training.fencing import Fence, RankProcess, RanksStillRun, end_ranks_of, fence


class RankPlace(NamedTuple):
    """What Ray Train knows of a worker, as far as the fence asks."""

    node_ip: str
    pid: int


Answers = Callable[..., tuple[Answer[tuple[int, ...]], ...]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], int]]:
    """Starts a process with the mark of a run; every one is gone after the test."""
    started = []

    def run(mark: str) -> int:
        command = [sys.executable, "-S", "-c", "print(flush=True); input()"]
        process = subprocess.Popen(
            command, env={RUN_VARIABLE: mark}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None and process.stdout.readline() == b"\n"
        started.append(process)
        return process.pid

    yield run
    for process in started:
        process.kill()
        process.communicate()


def has_ended(pid: int) -> bool:
    """Also when its parent, which is this process, has not taken note of it yet."""
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def answering(value: tuple[int, ...] | None) -> Answers:
    """A cluster of which only host `a` is left, and says this."""
    return lambda function, timeout_s, only: (Answer("a", value, "" if value is not None else "dead", 0, 0),)


@pytest.fixture(autouse=True)
def on_a_host_of_no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "elsewhere")


def test_a_host_ends_those_of_the_ranks_that_run_there_and_carry_the_mark(
    tmp_path: Path, start: Callable[[str], int]
) -> None:
    run = RunDirectory(tmp_path)
    mine, elsewhere, stranger = start(str(tmp_path)), start(str(tmp_path)), start("/runs/other")
    ranks = {
        0: RankProcess("here", mine),
        1: RankProcess("there", elsewhere),
        2: RankProcess("here", stranger),
    }
    assert end_ranks_of("here", ranks, run) == ()
    assert has_ended(mine)
    assert psutil.Process(elsewhere).is_running() and psutil.Process(stranger).is_running()


def test_hosts_that_cannot_be_asked_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = {0: RankProcess("a", 1), 1: RankProcess("b", 1)}
    monkeypatch.setattr(fencing, "ask_every_host", answering(()))
    assert fence(ranks, RunDirectory(tmp_path)) == ("b",)
    monkeypatch.setattr(fencing, "ask_every_host", answering(None))
    assert fence(ranks, RunDirectory(tmp_path)) == ("a", "b")


def test_a_rank_that_does_not_end_keeps_the_next_generation_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fencing, "ask_every_host", answering((3,)))
    with pytest.raises(RanksStillRun, match=r"ranks \[3\] of the last generation still run on a") as caught:
        fence({3: RankProcess("a", 1)}, RunDirectory(tmp_path))
    assert classify(caught.value).kind is FailureKind.START_FAILED


def test_the_ranks_of_a_launch_that_was_killed_are_fenced_by_the_next(
    tmp_path: Path, start: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    events = EventLog(tmp_path / "events.jsonl")
    left = start(str(tmp_path))
    for generation, pid in ((1, 1), (2, left)):
        events.emit("group_starting", generation=generation)
        events.emit("rank_joined", rank=0, host="a", pid=pid)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "a")
    Fence(events).before_worker_group_start(None)
    assert has_ended(left)
    assert [event["ranks"] for event in events.read() if event["event"] == "fenced"] == [[0]]


def test_a_process_that_got_the_id_of_a_rank_of_an_earlier_launch_is_not_killed(
    tmp_path: Path, start: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    events = EventLog(tmp_path / "events.jsonl")
    new, old = start(str(tmp_path)), start(str(tmp_path))
    for rank, pid, moved in ((0, new, 1), (1, old, 0)):
        events.emit("rank_joined", rank=rank, host="a", pid=pid, started=(start_ticks(pid) or 0) - moved)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "a")
    Fence(events).before_worker_group_start(None)
    assert psutil.Process(new).is_running() and has_ended(old)


def test_ranks_that_never_met_are_fenced(
    tmp_path: Path, start: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = start(str(tmp_path))
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "a")
    fence_of_run = Fence(EventLog(tmp_path / "events.jsonl"))
    fence_of_run.before_init_train_context([SimpleNamespace(metadata=RankPlace("a", waiting))])
    fence_of_run.before_worker_group_start(None)
    assert has_ended(waiting)
