"""The MindSpore scheduler of one group: the process through which its ranks find each other (dynamic cluster).

Rank 0's worker starts it, and the kernel kills it when that worker ends (PR_SET_PDEATHSIG). So no scheduler outlives
its group, even if the worker is killed. Every generation has its own scheduler on its own port.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import psutil

from orchestrator.ascend.device_groups import Soc
from orchestrator.ascend.environment import scheduler_environment
from orchestrator.engine.host.log_files import open_log
from orchestrator.errors import ClusterError
from orchestrator.module_path import python_module
from orchestrator.storage import storage_errors

_PR_SET_PDEATHSIG = 1
_PORT_TRIES = 5


class SchedulerDidNotStart(ClusterError):
    """The scheduler process ended early or never listened. Example: the host has no free port."""

    def __init__(self, host: str, detail: str):
        super().__init__(host, detail)
        self.host, self.detail = host, detail

    def __str__(self) -> str:
        return f"the MindSpore scheduler on {self.host} did not start ({self.detail}); see logs/scheduler.log"


class Scheduler:
    """A running scheduler process and its address."""

    def __init__(self, process: subprocess.Popen, host: str, port: int):
        self.process, self.host, self.port = process, host, port

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        """Kill the process and wait until it has ended; then its port is free."""
        self.process.kill()
        self.process.wait()


def start_scheduler(
    host: str,
    world_size: int,
    *,
    timeout_s: float,
    failure_budget_s: float,
    soc: Soc,
    log_path: str | None = None,
    while_starting: Callable[[], None] = lambda: None,
) -> Scheduler:
    """Start a scheduler for `world_size` ranks on a free port of `host` and wait until it listens.

    Another program may take the port before the scheduler binds it; then another port is tried. Call it in an actor's
    main thread: the kernel kills the scheduler when the thread that started it ends. while_starting: called while the
    process starts. Raises SchedulerDidNotStart, and StorageError if the log cannot be opened.
    """
    detail = ""
    for _ in range(_PORT_TRIES):
        port = free_port(host)
        environment = scheduler_environment(
            world_size=world_size,
            scheduler_host=host,
            scheduler_port=port,
            failure_budget_s=failure_budget_s,
            soc=soc,
        )
        process = _spawn(environment, log_path)
        while_starting()
        detail = _wait_until_listening(process, port, timeout_s)
        if not detail:
            return Scheduler(process, host, port)
        process.kill()
        process.wait()
    raise SchedulerDidNotStart(host, detail)


def free_port(host: str) -> int:
    """A TCP port of `host` that is free now; another program may take it at any time."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def _output(log_path: str | None) -> Iterator[BinaryIO]:
    """The scheduler's output file. Raises StorageError, because the log is in the run's storage."""
    with contextlib.ExitStack() as stack:
        if log_path is None:
            yield stack.enter_context(Path(os.devnull).open("wb", buffering=0))
            return
        with storage_errors(log_path):
            log = stack.enter_context(open_log(Path(log_path)))
        yield log


def _spawn(environment: dict[str, str], log_path: str | None) -> subprocess.Popen:
    with _output(log_path) as log:
        return subprocess.Popen(
            [*python_module("orchestrator.engine.rank.scheduler"), str(os.getpid())],
            env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip


def _wait_until_listening(process: subprocess.Popen, port: int, timeout_s: float) -> str:
    """Wait until the process listens on the port; returns an empty string, or what went wrong."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            status = process.wait(timeout=0.05)
            return f"it ended with status {status} before it listened on port {port}"
        except subprocess.TimeoutExpired:
            pass  # it runs
        if _listens(process.pid, port):
            return ""
    return f"it did not listen on port {port} within {timeout_s:.0f} s"


def _listens(pid: int, port: int) -> bool:
    # Connecting would prove less: another program may listen on the port.
    try:
        sockets = psutil.Process(pid).net_connections("tcp")
    except psutil.NoSuchProcess:
        return False
    return any(s.status == psutil.CONN_LISTEN and s.laddr.port == port for s in sockets)


def _end_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent ends; exit if the parent has ended already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        sys.exit(f"process {parent}, which this scheduler belongs to, is gone")


def main() -> None:
    """Serve one group until the parent process ends it."""
    _end_with_parent(int(sys.argv[1]))
    import mindspore

    mindspore.communication.init()  # returns when the group has finished
    threading.Event().wait()  # keep the port until the parent ends, so that no other program gets it


if __name__ == "__main__":
    main()
