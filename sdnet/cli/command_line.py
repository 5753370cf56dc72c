"""Arguments, output and options that `sdnet` and `sdnet-orchestrate` have in common."""

import codecs
import io
import os
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TextIO

import typer
from typer.exceptions import TyperException

from sdnet.cli.mindspore_variables import refuse_variables_mindspore_fails_on
from sdnet.cli.path_option import path_option
from sdnet.errors import InputError, escaped
from sdnet.paths import refuse_deleted_folder

# Options of `register`.
NetworkOption = Annotated[
    Path | None,
    typer.Option(
        help="A network that supports the coarse search; without it, hand-crafted templates find the points.",
        callback=path_option,
    ),
]
ModelOption = Annotated[str, typer.Option(help="Transform: translation, affine, homography or piecewise.")]
SearchOption = Annotated[
    str, typer.Option(help="near: shifts to 72 px; wide: shifts to 200 px and any rotation.")
]
MeasureOption = Annotated[
    str, typer.Option(help="Measure of the templates: cfog_mind, cfog, mind, log_gabor or phase_congruency.")
]
# Option of every command that computes descriptors.
AdaptOption = Annotated[
    bool,
    typer.Option(
        "--adapt",
        help="Take BatchNorm statistics from these images, not the checkpoint; labels are not used.",
    ),
]


# NumPy and OpenCV alone take 280 MB of addresses, and OpenBLAS 34 MB for each thread.
_LEAST_ADDRESS_SPACE = 512 << 20
# MindSpore evaluates 96 pairs on two CPUs with 2930 MiB, and aborts with 2440.
_LEAST_ADDRESS_SPACE_OF_MINDSPORE = 2560 << 20
_LEAST_COLUMNS = 20
# The name of an error handler for text streams, see `_escape`.
ESCAPE = "sdnet.escape"


def refuse_small_address_space(least: int = _LEAST_ADDRESS_SPACE) -> None:
    """Raise InputError when the shell limits a process (`ulimit -v`) to less than the libraries need, in bytes.

    OpenBLAS retries forever when the kernel refuses memory, and only SIGKILL ends that.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < least:
        raise InputError(
            f"this shell limits a process to {limit >> 20} MiB of addresses (`ulimit -v`), and the libraries need "
            f"{least >> 20}; raise the limit"
        )


def refuse_what_mindspore_fails_on() -> None:
    """Raise InputError where MindSpore would abort or print a traceback; call it before MindSpore is imported."""
    refuse_deleted_folder("MindSpore")
    refuse_small_address_space(_LEAST_ADDRESS_SPACE_OF_MINDSPORE)
    refuse_variables_mindspore_fails_on()


def refuse_empty(arguments: Sequence[str]) -> None:
    """Raise InputError for an empty argument, such as an unset shell variable gives.

    `--images "$UNSET"` would be read as the current directory.
    """
    for before, argument in zip(("the program", *arguments), arguments, strict=False):
        option, equals, value = argument.partition("=")
        if not argument or (option.startswith("--") and equals and not value):
            name = option or (before if before.startswith("--") else f"the argument after {before}")
            raise InputError(f"{name} is empty; give a value, or leave it out")


def run_command(app: Callable[..., object]) -> int:
    """Run the command that `sys.argv` names, and return its exit code. Raises InputError for wrong arguments."""
    try:
        code = app(standalone_mode=False)
    except TyperException as error:
        # Pydantic writes its name of the error in front of the reason.
        message, context = error.format_message().replace("Value error, ", "", 1), getattr(error, "ctx", None)
        if not message:
            return 2  # there are no arguments, and the help was printed
        hint = f"; see `{context.command_path} --help`" if context is not None else ""
        raise InputError(message.rstrip(".") + hint) from None
    return code if isinstance(code, int) else 0


def ignore_unusable_width() -> None:
    """Remove COLUMNS when it leaves no room for text: containers set it to 0, and rich prints nothing then."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) < _LEAST_COLUMNS:
        del os.environ["COLUMNS"]


def print_any_text(*streams: TextIO | None) -> None:
    """Print characters that the encoding lacks as escapes: a path may contain any character or byte."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPE)


def _escape(error: UnicodeError) -> tuple[str, int]:
    r"""Replace what an encoding lacks by escapes: a byte that is no text by `\xc3`, which `user_path` reads back."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(map(escaped, error.object[error.start : error.end])), error.end


codecs.register_error(ESCAPE, _escape)
