"""Keeps the signal handlers of a command while Ray, which changes them, starts or ends."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sdnet.cli.interruption import ENDING_SIGNALS


@contextmanager
def keeping_signal_handlers() -> Iterator[None]:
    """Keep our handlers through a block in which Ray starts or ends; signals wait until the block ends.

    When Ray starts, it installs handlers of SIGTERM in Python and in C++; the latter prints a stack trace and aborts.
    If a signal interrupts the start, Ray is half started, and the process crashes at its end. Signals wait only if
    every thread blocks them (see `hold_signals`). Threads and processes that start in the block inherit the mask.
    Only the main thread has handlers; in another thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {signum: signal.getsignal(signum) for signum in ENDING_SIGNALS}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    try:
        yield
    finally:
        for signum, handler in handlers.items():
            if handler is not None:
                signal.signal(signum, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
