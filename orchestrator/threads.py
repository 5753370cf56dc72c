"""Threads that leave signals to the main thread."""

import signal
import threading

_TO_THE_MAIN_THREAD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def start_without_signals(thread: threading.Thread) -> None:
    """Start a thread that never receives the signals that end a command.

    A signal to a process goes to any thread that does not block it. While Ray starts, the main thread blocks these
    signals. A thread that does not would receive them, and Ray would abort with a stack trace.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _TO_THE_MAIN_THREAD)
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
