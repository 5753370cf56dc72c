"""Signals that end a command, beside libraries that take them for themselves: Ray and MindSpore."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeVar, cast

from orchestrator.errors import OrchestratorError
from sdnet.interruption import ENDING_SIGNALS, interrupt_silently

T = TypeVar("T")
# A child that compiles a graph obeys SIGTERM when the compiler returns.
_CHILD_ENDS_WITHIN_S = 5.0


class ChildDied(OrchestratorError):
    """A process that worked for a command ended without an answer. Example: the kernel had no memory left."""

    def __init__(self, exit_code: int):
        super().__init__(exit_code)
        self.exit_code = exit_code

    def __str__(self) -> str:
        how = f"signal {-self.exit_code}" if self.exit_code < 0 else f"exit code {self.exit_code}"
        return f"the process that did the work ended with {how}; look at the host's memory, and run it again"


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
    for signum in ENDING_SIGNALS:  # the parent says what there is to say
        signal.signal(signum, interrupt_silently)
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
