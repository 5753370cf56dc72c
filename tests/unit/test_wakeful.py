"""Sleeps in C end early, and only there, and only for as long as they shall."""

import ctypes
import signal
import time

import pytest

from orchestrator.training.wakeful import wakeful

libc = ctypes.PyDLL(None)  # keeps Python's lock while it sleeps, as MindSpore does


def test_a_sleep_in_c_is_cut_short() -> None:
    with wakeful():
        left = libc.sleep(60)
    assert left >= 59


def test_python_sleeps_on() -> None:
    with wakeful():
        began = time.monotonic()
        time.sleep(0.6)
        assert time.monotonic() - began >= 0.6


@pytest.mark.parametrize("before", [(0.0, 0.0), (3600.0, 60.0)])
def test_handler_and_timer_are_as_before(before: tuple[float, float]) -> None:
    handler, timer = signal.getsignal(signal.SIGALRM), signal.setitimer(signal.ITIMER_REAL, *before)
    with wakeful():
        assert signal.getitimer(signal.ITIMER_REAL)[1] < 1
    assert signal.getsignal(signal.SIGALRM) == handler
    delay, interval = signal.setitimer(signal.ITIMER_REAL, *timer)
    assert interval == before[1] and before[0] - 60 < delay <= before[0]
