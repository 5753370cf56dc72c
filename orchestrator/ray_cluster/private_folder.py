"""A private folder for Ray's files. It is removed when the block ends, or by a later launch if this one was killed.

Every user of the host can access Ray's default, /tmp/ray, and Ray never removes its files there.
Names: `sdnet-<random>` with mode 0700. Ray gives its own folder mode 0777, so that one is inside. The process that
uses a folder has a flock on it. The kernel releases the lock when the process ends, however it ends, so a folder whose
lock is free is abandoned.
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from sdnet.errors import InputError

_DEFAULT = "/tmp"
_PREFIX = "sdnet-"
_NAME_BYTES = len(_PREFIX) + 8
_RAY_FOLDER = "r"
# Ray's longest socket: <folder>/r/session_<date>_<time>_<microseconds>_<pid>/sockets/plasma_store
_SOCKET_BYTES = len(f"/{_RAY_FOLDER}/session_2026-11-26_03-18-54_123456_4194304/sockets/plasma_store")
_LONGEST_SOCKET = 107  # sun_path of Linux, without its final zero
LONGEST_BASE = _LONGEST_SOCKET - _SOCKET_BYTES - _NAME_BYTES - 1
# A disk that cannot store even this much is full: Ray could not start.
_PROBE_BYTES = 1 << 20
# Ray's last processes may write a line after `ray.shutdown` returned.
_REMOVED_WITHIN_S = 5.0
_POLL_S = 0.1


@contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder for Ray, in RAY_TMPDIR, TMPDIR or /tmp; abandoned ones there are removed first.

    Raises InputError when none of them can be written and is short enough for Ray's sockets.
    """
    base = usable_base(os.environ)
    remove_abandoned(base)
    folder, lock = _locked_folder(base)
    try:
        (folder / _RAY_FOLDER).mkdir()
        yield folder / _RAY_FOLDER
    finally:
        _remove(folder)
        os.close(lock)


def usable_base(environment: Mapping[str, str]) -> Path:
    """The first folder that is writable and whose path is short enough for Ray's sockets."""
    given = [environment.get("RAY_TMPDIR"), environment.get("TMPDIR"), _DEFAULT]
    problems = []
    for path in dict.fromkeys(filter(None, given)):
        problem = _why_unusable(Path(path))
        if not problem:
            return Path(path).absolute()
        problems.append(f"{path[:80]}: {problem}")
    raise InputError(
        f"Ray has no folder for its files ({'; '.join(problems)}); "
        "free or unlock one, or set TMPDIR to a short, writable folder"
    )


def remove_abandoned(base: Path) -> None:
    """Remove the folders of this user whose process has ended. Example: an earlier launch was killed."""
    for folder in base.glob(f"{_PREFIX}{'?' * 8}"):
        lock = _lock_if_abandoned(folder)
        if lock is not None:
            _remove(folder)
            os.close(lock)


def _locked_folder(base: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        descriptor = _open(folder)
        if descriptor is None:
            continue  # another launch removed it as abandoned, before we locked it
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another launch is about to remove it
            os.close(descriptor)
            continue
        except OSError:
            pass  # a file system without locks: other launches cannot lock it either, so they do not remove it
        if folder.exists():
            return folder, descriptor
        os.close(descriptor)


def _lock_if_abandoned(folder: Path) -> int | None:
    """A descriptor that holds the lock of this user's folder; None if a process uses it, or it was deleted."""
    descriptor = _open(folder)
    if descriptor is None:
        return None
    try:
        if os.fstat(descriptor).st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
    except OSError:
        pass  # in use, or on a file system without locks
    os.close(descriptor)
    return None


def _open(folder: Path) -> int | None:
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None  # deleted, not a folder, or another user's


def _remove(folder: Path) -> None:
    deadline = time.monotonic() + _REMOVED_WITHIN_S
    while folder.exists():
        with suppress(OSError):
            shutil.rmtree(folder)
            return
        if time.monotonic() > deadline:
            return  # the next launch removes the rest
        time.sleep(_POLL_S)


def _why_unusable(base: Path) -> str:
    """Why Ray cannot keep its files below this folder; empty if it can."""
    try:
        length = len(os.fsencode(base.absolute()))  # fails when the current directory was deleted
        if length > LONGEST_BASE:
            return f"{length} bytes long, sockets allow {LONGEST_BASE}"
        if os.fsencode(base).decode("utf-8", "replace") != str(base):
            return "no UTF-8 name, and Ray takes no other"
        with tempfile.TemporaryFile(dir=base) as probe:
            probe.write(bytes(_PROBE_BYTES))
            probe.flush()
    except OSError as error:
        return error.strerror or str(error)
    return ""
