"""Files that appear whole or not at all, and the places where they can."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sdnet.errors import InputError


@contextmanager
def whole_file(path: Path, sync: bool = True) -> Iterator[BinaryIO]:
    """Write `path` under a temporary name, `.<name>.<random>` beside it; synced and renamed at the end.

    When the block raises, the temporary file goes and what was at `path` stays. A killed
    process leaves its temporary file behind: `sweep` removes it. Raises OSError. `sync=False`
    is for files that are believed by their sum only: after a power cut they may be torn.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp's files are for their owner alone
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_place(path: Path) -> None:
    """Raise InputError when no file could be written at `path`; nothing is written, its folder not made."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}); name a file in a folder that is there and writable"
        ) from None


def make_folder(path: Path) -> None:
    """Make a folder, and those above it. Raises InputError when it cannot be made or written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(f"folder {path} cannot be written ({error.strerror}); give a writable one") from None


def sweep(directory: Path) -> None:
    """Remove temporary files that killed processes left in a directory which nobody writes to now."""
    for path in directory.glob(".*"):
        if path.is_file():
            path.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Sum of a file's bytes, in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
