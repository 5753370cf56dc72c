"""Waits for the end of processes that are not children of this process."""

import time
from collections.abc import Iterable

import psutil

# Polling interval for processes that we cannot `wait()` on.
_LOOK_EVERY_S = 0.1


def still_running(processes: Iterable[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """The processes that have not ended after `timeout_s`; returns as soon as all have ended.

    A zombie counts as ended, because it uses no resources. Its parent may be a stopped raylet, or the first process
    of a container, which often does not reap.
    """
    deadline = time.monotonic() + timeout_s
    left = [process for process in processes if not _has_ended(process)]
    while left and time.monotonic() < deadline:
        _, there = psutil.wait_procs(left, timeout=_LOOK_EVERY_S)
        left = [process for process in there if not _has_ended(process)]
    return left


def _has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
