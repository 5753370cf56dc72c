"""The callback of path options: a wrong path is named with its option, in one line."""

import os
import re
from pathlib import Path

from typer import CallbackParam

from sdnet.paths import NO_HOME, path_problem, user_path

# `Path` has folded the two slashes of a URL into one.
_FOLDED = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+:)/(?=[^/])")


def path_option(param: CallbackParam, value: Path | list[Path] | None) -> Path | list[Path] | None:
    """Callback of a command line's path options: shells leave `~` alone in `--out=~/x`.

    As in a shell, `~x` is a file of that name when there is no user x. Raises InputError where `user_path` does.
    """
    # Of `--out` and `-o` the long one. An argument has no sign before its name.
    name = (
        max(param.opts, key=len) if param.opts[0].startswith("-") else param.metavar or param.opts[0].upper()
    )
    if isinstance(value, list):
        return [_path_given(name, path) for path in value]
    return None if value is None else _path_given(name, value)


def _path_given(name: str, value: Path) -> Path:
    text = str(value)
    if path_problem(text) == NO_HOME and os.access(value, os.F_OK):
        return value
    return user_path(_FOLDED.sub(r"\1//", text), name)
