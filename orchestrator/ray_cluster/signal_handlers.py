"""Keeps the signal handlers of a command while Ray, which changes them, starts or ends."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sdnet.cli.interruption import ENDING_SIGNALS, leave_interrupted

# Ray answers within seconds, or never: some of its calls wait for a server without a limit.
_HANGS_AFTER_S = 10.0
# What the main thread sends to the thread that waits for signals.
_DONE = signal.SIGRTMIN + 1


@contextmanager
def keeping_signal_handlers() -> Iterator[None]:
    """Keep our handlers through a block in which Ray starts or ends; signals wait until the block ends.

    If the block does not end within ten seconds after a signal, the signal ends the process.

    When Ray starts, it installs handlers of SIGTERM in Python and in C++; the latter prints a stack trace and aborts.
    If a signal interrupts the start, Ray is half started, and the process crashes at its end. Signals wait only if
    every thread blocks them (see `hold_signals`). Threads and processes that start in the block inherit the mask.
    Only the main thread has handlers; in another thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {signum: signal.getsignal(signum) for signum in ENDING_SIGNALS}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [*ENDING_SIGNALS, _DONE])
    done = threading.Event()
    heeded = [signum for signum, handler in handlers.items() if handler is not signal.SIG_IGN]
    waiting = threading.Thread(target=_wait_for_a_signal, args=(heeded, done), daemon=True)
    waiting.start()
    try:
        yield
    finally:
        done.set()
        with suppress(ProcessLookupError):  # a signal has ended the thread
            signal.pthread_kill(waiting.ident or 0, _DONE)
        waiting.join()
        for signum, handler in handlers.items():
            if handler is not None:
                signal.signal(signum, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait_for_a_signal(heeded: list[signal.Signals], done: threading.Event) -> None:
    """Pass a signal on to the main thread once Ray is done, or end the process."""
    signum = signal.sigwait([*heeded, _DONE])
    if signum == _DONE:
        return
    if not done.wait(_HANGS_AFTER_S):
        leave_interrupted("sdnet-orchestrate", signum)
    signal.pthread_kill(threading.main_thread().ident or 0, signum)
