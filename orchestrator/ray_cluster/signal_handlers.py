"""Keeps the signal handlers of a command, and lets signals wait, while Ray starts or ends or MindSpore is imported."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sdnet.cli.interruption import ENDING_SIGNALS, leave_interrupted, received_by_a_thread

# Ray answers within seconds, or never: some of its calls wait for a server without a limit.
_HANGS_AFTER_S = 10.0


@contextmanager
def keeping_signal_handlers() -> Iterator[None]:
    """Keep our handlers through a block in which Ray starts or ends, or MindSpore is imported.

    Signals wait until the block ends.

    If the block does not end within ten seconds after a signal, the signal ends the process, because a handler in
    Python cannot interrupt Ray's C++ code.

    When Ray starts, it installs handlers of SIGTERM in Python and in C++; the latter prints a stack trace and aborts.
    If a signal interrupts the start, Ray is half started, and the process crashes at its end. Signals wait only if
    every thread blocks them (see `hold_signals`). Threads and processes that start in the block inherit the mask.
    Only the main thread has handlers; in another thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {signum: signal.getsignal(signum) for signum in ENDING_SIGNALS}
    done = threading.Event()
    main = threading.get_ident()

    def pass_on(signum: int) -> None:
        if not done.wait(_HANGS_AFTER_S):
            leave_interrupted("sdnet-orchestrate", signum)
        signal.pthread_kill(main, signum)

    # A signal that is passed on waits until our handlers are back.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    try:
        with received_by_a_thread(ENDING_SIGNALS, pass_on):
            try:
                yield
            finally:
                done.set()
    finally:
        for signum, handler in handlers.items():
            if handler is not None:
                signal.signal(signum, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
