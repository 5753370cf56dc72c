"""Ends a command on a signal, although Ray and MindSpore install signal handlers of their own."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeVar, cast

from orchestrator.errors import OrchestratorError
from sdnet.cli.interruption import ENDING_SIGNALS, interrupt_silently

T = TypeVar("T")
# A child that compiles a graph reacts to SIGTERM only when the compiler returns.
_CHILD_ENDS_WITHIN_S = 5.0


class ChildDied(OrchestratorError):
    """The child process of a command ended without a result. Example: the kernel had no memory left."""

    def __init__(self, exit_code: int):
        super().__init__(exit_code)
        self.exit_code = exit_code

    def __str__(self) -> str:
        how = f"signal {-self.exit_code}" if self.exit_code < 0 else f"exit code {self.exit_code}"
        return f"the process that did the work ended with {how}; look at the host's memory, and run it again"


def in_a_child(function: Callable[[], T]) -> T:
    """Call `function` in a forked process that only our SIGTERM can interrupt, and return its result.

    For work in which MindSpore compiles graphs. With each graph MindSpore replaces the handler of SIGINT by one
    that only prints a warning, and its C++ code delays our handlers. In a child, this process can still react
    at once. Raises what the function raises; that must be picklable.
    """
    if "mindspore" in sys.modules:
        return function()  # its threads do not survive a fork
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_report, args=(sending, function))
    # Ctrl-C on the terminal reaches both processes until the child has its own session.
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
    """In the child: send the result or the exception of `function`."""
    os.setsid()
    for signum in ENDING_SIGNALS:  # the parent prints the message
        signal.signal(signum, interrupt_silently)
    reply: tuple[object, Exception | None]
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
        try:
            reply = (function(), None)
        except Exception as error:  # noqa: BLE001 - the parent raises it
            reply = (None, error)
        # The parent ends this process as soon as it has the reply, perhaps inside `send`. A signal mask would
        # not help: a thread of MindSpore receives the signal, and Python's handler runs in this thread.
        for signum in ENDING_SIGNALS:
            signal.signal(signum, signal.SIG_DFL)
    except KeyboardInterrupt:
        return  # the parent, which sent the signal, reports it
    answer.send(reply)
