"""launch.lock: at most one launch of this host works in a run directory.

The kernel drops the lock with the process that holds it, however that ends.
"""

import contextlib
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator.job.run_directory import RunDirectory
from sdnet.errors import InputError

_MOST_BYTES = 4096


@contextlib.contextmanager
def locked(run: RunDirectory) -> Iterator[None]:
    """Hold the lock of a run directory. Raises InputError when another launch has it, or it cannot be had."""
    path = run.root / "launch.lock"
    descriptor = _open(path)
    try:
        _take(descriptor, path)
        note = f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T')}\n"
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, note.encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    """Open a regular file with one name: through a link that others plant, we would empty its target."""
    try:
        # O_NONBLOCK: a FIFO would otherwise wait for its other end.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        raise InputError(
            f"{path} cannot be opened ({error.strerror}); remove it, or make it writable"
        ) from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(descriptor)
        raise InputError(f"{path} is not a regular file of its own; remove it")
    return descriptor


def _take(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, _MOST_BYTES, 0).decode(errors="replace").strip()
        raise InputError(
            f"{path.parent} is being run by {holder or 'another launch'}; "
            "wait for it, stop it, or give this job another `name`"
        ) from None
    except OSError as error:
        raise InputError(
            f"{path} cannot be locked ({error.strerror}); mount the storage with lock support, "
            "or give another `storage`"
        ) from None
