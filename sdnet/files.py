"""Files that appear whole or not at all."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


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


def sweep(directory: Path) -> None:
    """Remove temporary files that killed processes left in a directory which nobody writes to now."""
    for path in directory.glob(".*"):
        if path.is_file():
            path.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Sum of a file's bytes, in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
