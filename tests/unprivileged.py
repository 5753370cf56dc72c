"""Runs a function as a user without privileges, also when the tests run as root."""

import os
import traceback
from collections.abc import Callable
from pathlib import Path

_NOBODY = 65534


def let_anybody_write(folder: Path) -> None:
    """Open a folder below pytest's own, which it makes for its user only, to every user."""
    folder.chmod(0o777)
    for parent in folder.parents:
        parent.chmod(0o755)
        if parent.name.startswith("pytest-of-"):
            return


def as_nobody(function: Callable[[], str]) -> str:
    """Call the function in a forked process without root's rights, and return its result; fails with its traceback.

    Forked, not started as a new program: an ordinary user may not be able to read the interpreter or the project.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(_NOBODY)
                os.setuid(_NOBODY)
            answer = f"+{function()}"
        except BaseException:  # noqa: BLE001 - whatever it is, the parent must see it
            answer = f"-{traceback.format_exc()}"
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read().decode()
    os.waitpid(child, 0)
    assert answer.startswith("+"), answer[1:]
    return answer[1:]
