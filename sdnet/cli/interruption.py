"""Signals that end a command: Ctrl-C, SIGTERM and SIGUSR1 from job managers, SIGHUP from a closed terminal."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

# SIGUSR1: the warning of `sbatch --signal=B:USR1@60` before the end of a job's time.
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
_OTHERS_THAN_CTRL_C = ENDING_SIGNALS[1:]
_STDERR = 2
# Signals that no library uses: one from our thread to the main thread for a SIGINT, one that ends our thread.
_CTRL_C, _WAKE = int(signal.SIGRTMIN), int(signal.SIGRTMIN) + 1
# The last signal that became an exception, and a duplicate of standard error from before it was closed.
_last_received: int | None = None
_stderr_before: int | None = None


def hold_signals() -> None:
    """Let ENDING_SIGNALS wait until `admit_signals`. Threads that start until then never receive them.

    A signal to a process goes to any thread that does not block it. So it waits only if all threads block it, also
    those that NumPy starts when it is imported.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)


def admit_signals() -> None:
    """Let this thread, the main one, receive ENDING_SIGNALS. One that waited arrives now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)


@contextmanager
def received_by_a_thread(signals: Iterable[signal.Signals], act: Callable[[int], None]) -> Iterator[None]:
    """Call `act` in a thread of its own for each of these signals that arrives during the block.

    No handler is called, also none that a library installs, if all threads block the signals; this one does in the
    block. A signal that is ignored, as `nohup` does with SIGHUP, stays ignored, although a blocked one would arrive.
    """
    heeded = [signum for signum in signals if signal.getsignal(signum) is not signal.SIG_IGN]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [*heeded, _WAKE])

    def receive() -> None:
        while (signum := signal.sigwait([*heeded, _WAKE])) != _WAKE:
            act(signum)

    receiving = threading.Thread(target=receive, name="signals", daemon=True)
    receiving.start()
    try:
        yield
    finally:
        signal.pthread_kill(receiving.ident or 0, _WAKE)
        receiving.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def signals_admitted_beside_mindspore() -> Iterator[None]:
    """Let the main thread, which runs this block, receive ENDING_SIGNALS although MindSpore takes SIGINT.

    With each graph MindSpore replaces the handler of SIGINT by one that sends SIGTERM to this process, so Ctrl-C
    would end with the exit code of SIGTERM. So a thread receives SIGINT and sends another signal to the main thread.
    """
    main = threading.get_ident()
    # A Ctrl-C that waits already is passed on at once, and must not interrupt the start of the thread.
    signal.pthread_sigmask(signal.SIG_BLOCK, [_CTRL_C])
    before = signal.signal(_CTRL_C, lambda signum, frame: interrupt_silently(signal.SIGINT, frame))
    try:
        with received_by_a_thread([signal.SIGINT], lambda _: signal.pthread_kill(main, _CTRL_C)):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [_CTRL_C, *_OTHERS_THAN_CTRL_C])
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [_CTRL_C, *ENDING_SIGNALS])
        signal.signal(_CTRL_C, before)


def end_at_once_on_signals() -> None:
    """Let ENDING_SIGNALS end this process without a word. For the interpreter's exit, where Python prints tracebacks.

    A signal that is ignored, as `nohup` does with SIGHUP, stays ignored.
    """
    for signum in ENDING_SIGNALS:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, signal.SIG_DFL)


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to end. Example: SIGHUP, because the terminal was closed."""

    def __init__(self, signum: int = signal.SIGINT):
        super().__init__(signum)
        self.signum = signum


def exit_code_of(interruption: KeyboardInterrupt) -> int:
    """128 plus the signal's number, as shells report it: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
    # Ray raises a plain KeyboardInterrupt for a signal that arrives while it waits.
    signum = interruption.signum if isinstance(interruption, Interrupted) else _last_received
    return 128 + int(signum or signal.SIGINT)


def received_signal() -> int | None:
    """The last signal that `interruptible` raised as an exception, even if a library swallowed it."""
    return _last_received


@contextmanager
def interruptible(*, silent: bool = False) -> Iterator[None]:
    """Raise Interrupted in the main thread when one of ENDING_SIGNALS arrives. Call it in the main thread.

    All but Ctrl-C count once: `timeout` sends SIGTERM twice and a closing terminal may send both, and
    the second one must not end the work that the first one began, such as saving. A second Ctrl-C does
    interrupt it. A signal that was ignored before, as `nohup` does with SIGHUP, stays ignored.
    silent: see `interrupt_silently`.
    """
    global _last_received
    _last_received = None
    before = {signum: signal.getsignal(signum) for signum in ENDING_SIGNALS}
    for signum, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(signum, interrupt_silently if silent else _interrupt)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler if handler is not None else signal.SIG_DFL)


@contextmanager
def interruptible_in_one_line(program: str) -> Iterator[None]:
    """`interruptible`, silent: in this block a signal ends the process with one line and the signal's exit code.

    After a signal, any error may come from an interrupted library, so none is printed. A second Ctrl-C may arrive
    after the first one was caught.
    """
    try:
        with interruptible(silent=True):
            try:
                yield
            except BaseException:
                if _last_received is None:
                    raise
            if _last_received is not None:
                leave_interrupted(program, _last_received)
    except Interrupted as again:
        leave_interrupted(program, again.signum)


def interrupt_silently(signum: int, frame: FrameType | None) -> None:
    """A handler that closes standard error, then raises Interrupted.

    MindSpore's compiler prints many lines for an exception in its callbacks, and an interrupted import prints a
    traceback. `leave_interrupted` restores standard error for its one line. The compiler also writes a folder
    `rank_0` into MS_OM_PATH, or else into the current directory. Below os.devnull it cannot write one.
    """
    global _stderr_before
    os.environ["MS_OM_PATH"] = os.devnull
    with suppress(OSError):
        if _stderr_before is None:
            _stderr_before = os.dup(_STDERR)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, _STDERR)
        os.close(null)
    _interrupt(signum, frame)


def leave_interrupted(program: str, signum: int) -> NoReturn:
    """Print one line, and exit at once with the exit code of the signal.

    A normal exit may crash in a library whose import was interrupted. The next signal does not stop the line.
    """
    hold_signals()
    with suppress(OSError):
        sys.stdout.flush()
    with suppress(OSError):
        if _stderr_before is not None:
            os.dup2(_stderr_before, _STDERR)
        os.write(_STDERR, f"{program}: interrupted\n".encode())
    os._exit(128 + signum)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    global _last_received
    _last_received = signum
    for once in _OTHERS_THAN_CTRL_C:
        signal.signal(once, _no_op)
    raise Interrupted(signum)


def _no_op(signum: int, frame: FrameType | None) -> None:
    """Ignore a repeated signal. A handler, not SIG_IGN, because child processes inherit SIG_IGN."""
