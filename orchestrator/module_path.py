"""Starts other processes so that they import the same modules as this one, whatever the current directory holds."""

import os
import sys
from pathlib import Path

# The folder that contains this package.
_OURS = str(Path(__file__).resolve().parents[1])


def imports_from_here() -> bool:
    """Whether this process imports modules from the current directory: a checkout that is installed or run there."""
    here = os.path.realpath(os.curdir)
    return any(os.path.realpath(path) == here for path in (_OURS, *sys.path))


def python_module(name: str, python: str = "") -> list[str]:
    """The command that runs a module, with this Python unless another is named.

    A bare `python -m` would look for every import in the current directory first.
    """
    return [python or sys.executable, *([] if imports_from_here() else ["-P"]), "-m", name]
