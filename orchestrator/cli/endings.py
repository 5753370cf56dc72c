"""How a command ends: its exit code, and at most one line that says why."""

import errno
import sys
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from orchestrator.errors import InputError as OrchestratorInputError
from orchestrator.errors import OrchestratorError
from orchestrator.storage import RunLost
from sdnet.cli.command_line import refuse_empty, refuse_small_address_space, run_command
from sdnet.cli.interruption import (
    Interrupted,
    admit_signals,
    exit_code_of,
    interruptible,
    interruptible_in_one_line,
    received_signal,
)
from sdnet.cli.streams import standard_streams
from sdnet.errors import InputError, one_line

EXIT_CODES = (
    "Exit codes: 0 done, 1 the job failed, 2 the input is wrong, 4 another launch took the run over, "
    "130 interrupted by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP, 138 by SIGUSR1. "
    "register: 3 when a match cannot be trusted."
)
# Exit code of a launch that lost its run to another launch. `register` uses 3.
LOST = 4
# The results of these commands are on disk; their output only describes them.
_RESULT_ON_DISK = ("launch", "demo", "preprocess", "drill", "export", "register")
# These commands print after a signal, because they still save, and end processes on other hosts.
_TALK_AFTER_A_SIGNAL = ("launch", "demo", "preprocess", "drill", "check", "register")
# Errors of a file or its disk, and not of the program: a traceback would not help.
_FILE_TROUBLES = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOLCK,
    errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENXIO,
    errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENAMETOOLONG, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN,
)  # fmt: skip


class Commands(TyperGroup):
    """The commands. Each ends in one line when a signal interrupts it."""

    def invoke(self, ctx: Any) -> object:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interruption:
            tell("interrupted")
            raise typer.Exit(exit_code_of(interruption)) from None


def run_to_exit_code(app: Callable[..., object]) -> int:
    """Run the command line, print why it failed, and return its exit code."""
    silent = not set(_TALK_AFTER_A_SIGNAL) & set(sys.argv[1:2])
    signals = interruptible_in_one_line("sdnet-orchestrate") if silent else interruptible()
    try:
        with standard_streams() as streams, signals:
            code = _run(app, silent)
            lost = streams.why_output_was_lost()
            if lost:
                tell(f"standard output could not be written ({lost})")
                code = code or int(not set(_RESULT_ON_DISK) & set(sys.argv[1:2]))
        return code
    except Interrupted as again:  # a second Ctrl-C, after the first one was caught
        tell("interrupted")
        return exit_code_of(again)


def tell(message: str) -> None:
    """Print a line for the user on standard error, so that standard output contains only results."""
    print(f"sdnet-orchestrate: {message}", file=sys.stderr)


def _run(app: Callable[..., object], silent: bool) -> int:
    try:
        admit_signals()
        refuse_small_address_space()
        refuse_empty(sys.argv[1:])
        return run_command(app)
    except (InputError, OrchestratorInputError) as error:
        tell(one_line(str(error)))
        return 2
    except RunLost as error:
        tell(str(error))
        return LOST
    except OrchestratorError as error:
        tell(str(error))
        return 1
    except OSError as error:
        if error.errno not in _FILE_TROUBLES:
            raise
        tell(f"{error.filename or 'a file'}: {error.strerror}; look at it and its disk, and run this again")
        return 1
    except KeyboardInterrupt as interruption:
        # Outside of a command: while the arguments were parsed, or just after the command's end.
        tell("interrupted")
        return exit_code_of(interruption)
    except Exception:
        if not silent or received_signal() is None:
            raise
        # The signal interrupted a library; the caller reports the signal.
        return 1
