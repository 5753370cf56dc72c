"""Keeps MindSpore's rendezvous on CPU from sleeping for seconds at a time.

A rank that asks for the address of a peer before that peer has registered sleeps for 3 s in C++, and
one of two ranks nearly always does. A signal ends a sleep(3), and the rank asks again at once.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

# MindSpore asks 19 times for each peer before it gives up. Ranks begin together, or, with a scheduler,
# learn within 3 s of each other that all have registered, so this leaves three times as long.
_WAKE_EVERY_S = 0.5


@contextmanager
def wakeful() -> Iterator[None]:
    """Let no C function of this thread sleep for longer than half a second; main thread only.

    A system timer sends the signal, not a Python thread: MindSpore holds the GIL during the rendezvous, so no
    thread of ours could run. Python's own blocking functions continue to wait after the signal.
    """
    handler = signal.signal(signal.SIGALRM, _wake)
    timer = signal.setitimer(signal.ITIMER_REAL, _WAKE_EVERY_S, _WAKE_EVERY_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)


def _wake(signum: int, frame: object) -> None:
    """No-op: the signal only interrupts the sleep."""
