"""An ended process is recognised, also before its parent has reaped it."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from orchestrator import process_identity
from orchestrator.engine.host.processes import still_running
from orchestrator.process_identity import is_alive, process_mark, start_ticks


@pytest.fixture
def child():
    """A process that waits for its input to end, and a child of this one; gone after the test."""
    command = [sys.executable, "-S", "-c", "print(flush=True); input()"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"\n"
    yield process
    process.kill()
    process.communicate()


def test_a_process_that_runs_is_still_running_after_the_timeout(child) -> None:
    found = psutil.Process(child.pid)
    assert still_running([found], 0.3) == [found]


def test_a_killed_process_that_was_not_reaped_is_not_running(child) -> None:
    found = psutil.Process(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
    assert found.status() == psutil.STATUS_ZOMBIE
    assert still_running([found], 60) == []
    assert psutil.pid_exists(child.pid)


def test_a_stopped_process_still_runs_until_it_is_killed(child) -> None:
    found = psutil.Process(child.pid)
    found.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    assert still_running([found], 0.2) == [found]
    found.kill()
    assert still_running([found], 60) == []


def test_the_start_of_a_process_is_later_than_its_parents_and_stays(child) -> None:
    own, started = start_ticks(os.getpid()), start_ticks(child.pid)
    assert own is not None and started is not None
    assert own <= started == start_ticks(child.pid)
    child.kill()
    child.wait()
    assert start_ticks(child.pid) is None


def test_a_process_that_proc_hides_may_still_run(child, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = process_mark(child.pid)
    monkeypatch.setattr(process_identity, "_stat", lambda pid: None)  # as hidepid does for another user
    assert is_alive(mark) is None
    child.kill()
    child.wait()
    assert is_alive(mark) is False


@pytest.mark.parametrize("pid", ["", "x", "\u00b2", "9" * 5000, "-1"])
def test_a_mark_without_a_process_id_says_nothing(pid: str) -> None:
    where = process_mark(os.getpid()).partition(" ")[0]
    assert is_alive(f"{where} {pid} 1") is None
