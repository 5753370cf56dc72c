"""Opening a log in a folder that other users may write to."""

import os
from pathlib import Path
from typing import BinaryIO


def open_log(path: Path, *, empty: bool = False) -> BinaryIO:
    """Open a log for appending, and empty it first if asked. Raises OSError.

    A link at `path` is an error: we would write into its target, which somebody else chose. So is a FIFO,
    which would otherwise wait for its other end.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    return os.fdopen(os.open(path, flags | (os.O_TRUNC if empty else 0), 0o666), "ab", buffering=0)
