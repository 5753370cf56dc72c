"""Sleeps in C code end early, only inside the block; sleeps in Python do not."""

import ctypes
import os
import signal
import threading

import pytest

from orchestrator.engine.rank.wakeful import wakeful

libc = ctypes.PyDLL(None)  # keeps Python's lock while it sleeps, as MindSpore does


def test_a_sleep_in_c_is_cut_short() -> None:
    with wakeful():
        left = libc.sleep(60)
    assert left >= 59


def test_python_continues_to_wait_after_the_signal() -> None:
    reader, writer = os.pipe()

    def signal_and_write() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
        os.write(writer, b".")

    thread = threading.Thread(target=signal_and_write)
    with wakeful(), os.fdopen(reader, "rb") as pipe:
        thread.start()
        assert pipe.read(1) == b"."
    thread.join()
    os.close(writer)


@pytest.mark.parametrize("before", [(0.0, 0.0), (3600.0, 60.0)])
def test_handler_and_timer_are_as_before(before: tuple[float, float]) -> None:
    handler, timer = signal.getsignal(signal.SIGALRM), signal.setitimer(signal.ITIMER_REAL, *before)
    with wakeful():
        assert signal.getitimer(signal.ITIMER_REAL)[1] < 1
    assert signal.getsignal(signal.SIGALRM) == handler
    delay, interval = signal.setitimer(signal.ITIMER_REAL, *timer)
    assert interval == before[1] and before[0] - 60 < delay <= before[0]
