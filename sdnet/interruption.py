"""Signals that end a command: Ctrl-C, SIGTERM from job managers, SIGHUP from a closed terminal."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# The signal that `interruptible` turned into an exception last.
_last_received: int = signal.SIGINT


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to end. Example: SIGHUP, because the terminal was closed."""

    def __init__(self, signum: int = signal.SIGINT):
        super().__init__(signum)
        self.signum = signum


def exit_code_of(interruption: KeyboardInterrupt) -> int:
    """128 plus the signal's number, as shells report it: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
    # Ray raises a KeyboardInterrupt of its own for a signal that comes while it waits.
    signum = interruption.signum if isinstance(interruption, Interrupted) else _last_received
    return 128 + int(signum)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise Interrupted in the main thread when one of ENDING_SIGNALS arrives. Call it in the main thread.

    SIGTERM and SIGHUP count once: `timeout` sends SIGTERM twice and a closing terminal may send both, and
    the second one must not end the work that the first one began, such as saving. A second Ctrl-C does
    interrupt it. A signal that was ignored before, as `nohup` does with SIGHUP, stays ignored.
    """
    before = {signum: signal.getsignal(signum) for signum in ENDING_SIGNALS}

    def interrupt(signum: int, frame: FrameType | None) -> None:
        global _last_received
        _last_received = signum
        for once in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(once, _no_op)
        raise Interrupted(signum)

    for signum, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(signum, interrupt)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler if handler is not None else signal.SIG_DFL)


def _no_op(signum: int, frame: FrameType | None) -> None:
    """The first signal is being obeyed. A handler, not SIG_IGN: child processes inherit SIG_IGN."""
