"""What both command lines do with their arguments and their output."""

import io
from collections.abc import Sequence
from typing import TextIO

from sdnet.errors import InputError


def refuse_empty(arguments: Sequence[str]) -> None:
    """Raise InputError for an argument without text, as an unset variable of the shell leaves it.

    `--images "$UNSET"` would be read as the current directory.
    """
    for before, argument in zip(("the program", *arguments), arguments, strict=False):
        option, equals, value = argument.partition("=")
        if not argument or (option.startswith("--") and equals and not value):
            name = option or (before if before.startswith("--") else f"the argument after {before}")
            raise InputError(f"{name} is empty; give a value, or leave it out")


def print_any_text(*streams: TextIO | None) -> None:
    """Let streams print what their encoding lacks with escapes: a path may hold any character or byte."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
