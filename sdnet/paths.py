"""Reads paths as a user writes them: expands `~`, and reports a wrong one in one line."""

import os
import re
from pathlib import Path

from sdnet.errors import InputError, shown

# A byte of a file name that is not UTF-8, as Python's `backslashreplace` writes it.
_ESCAPED_BYTE = re.compile(r"\\x([89a-f][0-9a-f])")
# `Path` folds the two slashes of a URL into one.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\[A-Za-z0-9]")
NO_HOME = "the home directory of that user is not known here, so give the full path"
_LONGEST_NAME, _LONGEST_PATH = 255, 4095  # bytes, on Linux


def printable_path(text: str) -> str:
    r"""The same path as text that any file and any terminal can represent.

    Python reads a byte of the command line that is not UTF-8 (a folder named in GBK, for example) as a lone
    surrogate, which JSON and YAML do not allow. Here such a byte becomes `\xd6`; `user_path` reverses this.
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def path_problem(text: str) -> str:
    """Why `text` cannot be a path; empty if it can. Looks only at the text and this host's users."""
    if _URL.match(text):
        return "that is a URL: mount or download it, and give its path"
    if _WINDOWS.match(text):
        return "that is a path of Windows: give the path on this host, as /mnt/c/runs"
    if "\0" in text:
        return "a path cannot contain a NUL character"
    try:
        path = _expanded(text)
    except RuntimeError:
        return NO_HOME
    if max((_bytes_in(part) for part in path.parts), default=0) > _LONGEST_NAME:
        return f"a name in a path may have {_LONGEST_NAME} bytes"
    return f"a path may have {_LONGEST_PATH} bytes" if _bytes_in(str(path)) > _LONGEST_PATH else ""


def user_path(text: str, what: str = "path") -> Path:
    r"""The path that `text` names, with `~` and `~user` replaced and `\xd6` read as that byte.

    what: the key or option, for the message. Raises InputError where `path_problem` finds one.
    """
    problem = path_problem(text)
    if problem:
        raise InputError(f"{what} is {shown(text)}; {problem}")
    return _expanded(text)


def full_path(text: str, what: str = "path") -> Path:
    """`user_path`, made absolute and free of symbolic links. Also raises InputError for a loop of links."""
    path = user_path(text, what)
    try:
        return path.resolve()
    except FileNotFoundError:  # only the current directory can be missing here
        raise InputError(
            f"{what} is {shown(text)}; the current directory was deleted: change to one that exists, "
            "or give the full path"
        ) from None
    except (OSError, RuntimeError) as error:  # Python 3.11 raises RuntimeError for a loop
        raise InputError(
            f"{what} is {shown(text)}; it cannot be followed ({error}); repair its symbolic links"
        ) from None


def refuse_deleted_folder(reader: str) -> None:
    """Raise InputError when the current directory was deleted. reader: the library that fails without its name."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise InputError(
            f"the current directory was deleted, and {reader} reads its name; change to one that exists"
        ) from None


def _expanded(text: str) -> Path:
    """Raises RuntimeError for a user without a home directory."""
    raw = _ESCAPED_BYTE.sub(lambda byte: chr(0xDC00 + int(byte[1], 16)), text)
    # Where the locale is ASCII, Python's file calls take other characters only as escaped bytes.
    raw = os.fsdecode(raw.encode("utf-8", "surrogateescape"))
    # `Path` shortens `./~x` to `~x`, which would then mean a user.
    return Path(raw).expanduser() if raw.startswith("~") else Path(raw)


def _bytes_in(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))
