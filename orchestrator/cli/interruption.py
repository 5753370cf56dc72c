"""Signals that end a command: Ctrl-C, SIGTERM from job managers, SIGHUP from a closed terminal."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from types import FrameType
from typing import TypeVar, cast

from orchestrator.errors import OrchestratorError
from orchestrator.ray_cluster.signal_handlers import ENDING_SIGNALS

T = TypeVar("T")
# A child that compiles a graph obeys SIGTERM when the compiler returns.
_CHILD_ENDS_WITHIN_S = 5.0
# The signal that `interruptible` turned into an exception last.
_last_received: int = signal.SIGINT


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to end. Example: SIGHUP, because the terminal was closed."""

    def __init__(self, signum: int = signal.SIGINT):
        super().__init__(signum)
        self.signum = signum


class ChildDied(OrchestratorError):
    """A process that worked for a command ended without an answer. Example: the kernel had no memory left."""

    def __init__(self, exit_code: int):
        super().__init__(exit_code)
        self.exit_code = exit_code

    def __str__(self) -> str:
        how = f"signal {-self.exit_code}" if self.exit_code < 0 else f"exit code {self.exit_code}"
        return f"the process that did the work ended with {how}; look at the host's memory, and run it again"


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


def in_a_child(function: Callable[[], T]) -> T:
    """What `function` returns, from a forked process that only SIGTERM from here can interrupt.

    For work in which MindSpore compiles: with every graph it replaces the handler of SIGINT by one that
    prints a warning, and C++ code delays our own. Raises what the function raises, which must pickle.
    """
    if "mindspore" in sys.modules:
        return function()  # its threads do not survive a fork
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_report, args=(sending, function))
    # Until the child has a session of its own, Ctrl-C on the terminal reaches both.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    child.start()
    sending.close()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        value, error = receiving.recv()
    except EOFError:
        child.join()
        raise ChildDied(child.exitcode or 0) from None
    finally:
        child.terminate()
        child.join(_CHILD_ENDS_WITHIN_S)
        child.kill()
        child.join()
    if error is not None:
        raise error
    return cast(T, value)


def _report(answer: Connection, function: Callable[[], object]) -> None:
    """In the child: send what `function` returned or raised."""
    os.setsid()
    reply: tuple[object, Exception | None]
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
        try:
            reply = (function(), None)
        except Exception as error:  # noqa: BLE001 - the parent raises it
            reply = (None, error)
        # The parent ends this process as soon as it has the reply, perhaps inside `send`. A mask would
        # not do: a thread of MindSpore's takes the signal, and Python's handler runs in this one.
        for signum in ENDING_SIGNALS:
            signal.signal(signum, signal.SIG_DFL)
    except KeyboardInterrupt:
        return  # the parent, which sent the signal, reports it
    answer.send(reply)


def _no_op(signum: int, frame: FrameType | None) -> None:
    """The first signal is being obeyed. A handler, not SIG_IGN: child processes inherit SIG_IGN."""
