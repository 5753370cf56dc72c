"""The MindSpore scheduler listens before a rank joins, and ends with the process that started it."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from orchestrator.engine.rank import scheduler
from tests.integration.jobs import listening_addresses

pytestmark = pytest.mark.integration

_STARTS_ONE_AND_WAITS = """
import sys, threading
from orchestrator.engine.rank.scheduler import start_scheduler
scheduler = start_scheduler("127.0.0.1", 2, timeout_s=60, failure_budget_s=60, soc="910b")
print(scheduler.process.pid, flush=True)
threading.Event().wait()
"""


def start(tmp_path: Path) -> scheduler.Scheduler:
    return scheduler.start_scheduler(
        "127.0.0.1", 2, timeout_s=60, failure_budget_s=60, soc="910b", log_path=str(tmp_path / "log")
    )


def test_a_scheduler_whose_owner_is_killed_is_killed_with_it() -> None:
    owner = subprocess.Popen([sys.executable, "-c", _STARTS_ONE_AND_WAITS], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    process = psutil.Process(int(owner.stdout.readline()))
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    process.wait(timeout=10)
    assert not psutil.pid_exists(process.pid)


def test_a_port_taken_between_choosing_and_binding_costs_one_retry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        stolen = thief.getsockname()[1]
        free = scheduler.free_port("127.0.0.1")
        chosen = iter([stolen, free])
        monkeypatch.setattr(scheduler, "free_port", lambda host: next(chosen))
        running = start(tmp_path)
    assert running.port == free and running.alive
    assert listening_addresses(running.process.pid) == {"127.0.0.1"}
    running.stop()
    assert not running.alive
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", free))  # the port is free once more


def test_a_scheduler_that_cannot_start_is_an_error_that_names_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler.sys, "executable", "/bin/false")
    with pytest.raises(scheduler.SchedulerDidNotStart, match="127.0.0.1 did not start .*status 1"):
        start(tmp_path)
