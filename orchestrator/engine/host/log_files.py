"""Opening a log in a folder that other users may write to."""

import os
from pathlib import Path
from typing import BinaryIO


def open_log(path: Path, *, empty: bool = False) -> BinaryIO:
    """Open a log for appending. empty: truncate it first. Raises OSError.

    A link at `path` is an error, because another user may have chosen its target. A FIFO without a reader is an
    error, because opening it would block.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    return os.fdopen(os.open(path, flags | (os.O_TRUNC if empty else 0), 0o666), "ab", buffering=0)
