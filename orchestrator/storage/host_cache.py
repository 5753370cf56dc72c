"""Copies of shared files on this host's own disk, one for all processes of a user.

Reading a mapped page of a mount that lost its server raises SIGBUS, so shared files are mapped only here. Layout of
`<base>/sdnet-cache-<uid>/`, which only its user may enter:

    <sha256>        a verified copy
    .<sha256>.*     a copy that is being written; its writer has a flock on it
    <sha256>.lock   locked by the process that looks up or makes this copy; its time changes while bytes arrive
    room.lock       locked while files are counted and removed
    runs/           scratch folders; they do not count as copies

Processes that use a copy hold a shared flock on it. The kernel releases every flock when its process ends, however it
ends, so a temporary file without one is abandoned, and a copy without one may be removed. All locks are local.
"""

import contextlib
import fcntl
import os
import secrets
import socket
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.storage.bounded import Background, within
from orchestrator.storage.directory import storage_error
from orchestrator.storage.mounts import mount_of
from orchestrator.storage.protocol import StorageMisused, StorageUnavailable
from orchestrator.storage.verified_copy import VerifiedCopy, size_of

DEFAULT_BASE, DEFAULT_LIMIT_GB = "/var/tmp", 100.0
_SETTING = "cluster.cache"
# The modification time of a verified copy is these seconds and its size, see `_seal_ns`. A later write changes the
# time, and a file that lost its end has another size. In both cases the copy is made again.
_SEAL_S, _SIZES = 1_000_000_000, 1_000_000
_LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCache:
    """Where a host keeps its copies, and how many bytes they may take together.

    stall_s: how long a copy may make no progress, because storage is unavailable, before the wait ends with an error.
    """

    base: Path = Path(DEFAULT_BASE)
    limit_bytes: int = int(DEFAULT_LIMIT_GB * 1e9)
    stall_s: float = 60.0

    @contextlib.contextmanager
    def using(self, source: Path, sha256: str, alive: Callable[[], object] = lambda: None) -> Iterator[Path]:
        """The path at which this host may map the file, valid inside the block.

        It is `source` itself on a local file system, and otherwise a verified copy. The first process copies; the
        others wait for it. alive: called about every second during a copy.

        Raises StorageUnavailable when storage is away for longer than `stall_s`, or the disk is full, InputError
        for a file with another checksum or a cache that cannot be used, and StorageMisused for what is in its way.
        """
        if within(self.stall_s, str(source), lambda: mount_of(source)).is_local:
            yield source
            return
        with self.copied(source, sha256, alive) as copy:
            yield copy

    @contextlib.contextmanager
    def copied(self, source: Path, sha256: str, alive: Callable[[], object] = lambda: None) -> Iterator[Path]:
        """As `using`, on any file system."""
        with _local_errors(self.base):
            folder = self.folder()
            copy = self._held_copy(folder, source, sha256, alive)
        try:
            yield folder / sha256
        finally:
            os.close(copy)

    def folder(self) -> Path:
        """This user's folder, made if it is missing. Raises InputError when it is not private or not local."""
        mount = mount_of(self.base)
        if not mount.is_local:
            raise InputError(
                f"{_SETTING}.path is {self.base}, which is on {mount.type}; give a folder on the host's own disk"
            )
        folder = self.base / f"sdnet-cache-{os.geteuid()}"
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            pass
        except FileNotFoundError:
            raise InputError(
                f"{_SETTING}.path is {self.base}, which is not there on {socket.gethostname()}; make that folder, "
                "or give another one"
            ) from None
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise InputError(
                f"{folder} is not a private folder of this user; remove it, or set {_SETTING}.path to another folder"
            )
        return folder

    def _held_copy(self, folder: Path, source: Path, sha256: str, alive: Callable[[], object]) -> int:
        """A descriptor of the copy with a shared lock on it; the copy is made if it is missing."""
        lock = _open(folder / f"{sha256}.lock", os.O_RDWR | os.O_CREAT)
        try:
            self._await_lock(lock, source, alive)
            while True:
                copy = _sealed(folder / sha256)
                if copy is not None:
                    return copy

                def progressed() -> None:
                    os.utime(lock)  # those that wait for this copy see that it is not stuck
                    alive()

                self._copy(folder, source, sha256, progressed)
        finally:
            os.close(lock)

    def _await_lock(self, lock: int, source: Path, alive: Callable[[], object]) -> None:
        """Wait in the kernel, which wakes one waiter when the lock is released; give up when nothing is copied."""
        # The thread locks a duplicate of `lock`. If this wait is abandoned, the caller closes `lock`, and the thread
        # later closes the duplicate. That releases a lock which the kernel granted too late.
        waiting = os.dup(lock)
        call = Background(lambda: _flock_and_close(waiting))
        touched, since = 0, time.monotonic()
        while not call.finished(_LOOK_EVERY_S):
            alive()
            now, found = time.monotonic(), os.fstat(lock).st_mtime_ns
            if found != touched:
                touched, since = found, now
            # Longer than the copier's own limit, so that the copier reports the cause.
            elif now - since > 2 * self.stall_s:
                raise StorageUnavailable(
                    str(source), "another process of this host copies it and gets no data"
                )
        call.result()

    def _copy(self, folder: Path, source: Path, sha256: str, alive: Callable[[], object]) -> None:
        """Copy, verify, and only then give the copy its name."""
        size = size_of(source, self.stall_s)
        temporary = folder / f".{sha256}.{os.getpid()}.{secrets.token_hex(4)}"
        descriptor = self._reserve(folder, temporary, source, size)
        try:
            VerifiedCopy(source, sha256, descriptor, self.stall_s).run(alive)
            os.fsync(descriptor)
            os.utime(descriptor, ns=(time.time_ns(), _seal_ns(os.fstat(descriptor).st_size)))
            temporary.rename(folder / sha256)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(descriptor)

    def _reserve(self, folder: Path, temporary: Path, source: Path, size: int) -> int:
        """Make room and reserve it with a locked file of the full size, which others count. Returns its descriptor."""
        room = _open(folder / "room.lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(room, fcntl.LOCK_EX)
            self._make_room(folder, source, size)
            descriptor = _open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                os.posix_fallocate(descriptor, 0, max(size, 1))
                os.ftruncate(descriptor, size)
            except OSError:
                temporary.unlink()
                os.close(descriptor)
                raise
            return descriptor
        finally:
            os.close(room)

    def _make_room(self, folder: Path, source: Path, size: int) -> None:
        """Remove abandoned temporary files, then the least recently used copies, until `size` more bytes fit."""
        if size > self.limit_bytes:
            raise InputError(
                f"{source} has {_gb(size)} GB and the cache of each host may have {_gb(self.limit_bytes)} GB; "
                f"raise {_SETTING}.limit_gb"
            )
        used = 0
        copies = []
        for path in folder.iterdir():
            if path.is_dir() or path.suffix == ".lock":
                continue
            if path.name.startswith(".") and _remove_if_unused(path):
                continue
            found = path.lstat()
            used += found.st_size
            copies.append((found.st_atime_ns, found.st_size, path))
        for _, freed, path in sorted(copies):
            if used + size <= self.limit_bytes and size <= _free_bytes(folder):
                return
            if _remove_if_unused(path):
                used -= freed
        if used + size > self.limit_bytes:
            raise StorageUnavailable(
                str(source),
                f"the cache {folder} needs {_gb(size)} GB for it, and running jobs use {_gb(used)} of its "
                f"{_gb(self.limit_bytes)} GB; wait for them, or raise {_SETTING}.limit_gb",
            )


def _seal_ns(size: int) -> int:
    """Whole seconds, because some file systems store no smaller unit."""
    return (_SEAL_S + size % _SIZES) * 10**9


def _sealed(path: Path) -> int | None:
    """A descriptor with a shared lock of a copy that is complete and unchanged; None if there is no such copy."""
    try:
        descriptor = _open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits only for a process that is removing this copy
    found = os.fstat(descriptor)
    seal = _seal_ns(found.st_size)
    if found.st_nlink and found.st_mtime_ns == seal and found.st_uid == os.geteuid():
        os.utime(descriptor, ns=(time.time_ns(), seal))  # the access time orders copies by their last use
        return descriptor
    os.close(descriptor)
    return None


def _remove_if_unused(path: Path) -> bool:
    """Remove a file of the cache unless a process holds its lock; returns whether it was removed."""
    try:
        descriptor = _open(path, os.O_RDONLY)
    except OSError:
        return not path.exists()
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _flock_and_close(descriptor: int) -> None:
    # Descriptors made by `dup` share one lock, so closing this one keeps the lock for the other.
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def _open(path: Path, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g}"


@contextlib.contextmanager
def _local_errors(base: Path) -> Iterator[None]:
    """Report an OSError of this block as one of this host's disk; errors of the run's storage have their own types.

    StorageMisused, which is not retried, if something is in the way or may not be used.
    """
    try:
        yield
    except OSError as error:
        # A rename names two files, and the second one is in the way.
        place = str(error.filename2 or error.filename or base)
        kind = (
            StorageMisused if isinstance(storage_error(place, error), StorageMisused) else StorageUnavailable
        )
        detail = f"the cache of this host: {error.strerror or error}; see {_SETTING} in docs/cluster_yaml.md"
        raise kind(place, detail) from error
