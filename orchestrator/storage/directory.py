"""A directory as storage: local disk, NFS or any other mount that every host reaches."""

import contextlib
import errno
import functools
import itertools
import logging
import os
import secrets
import socket
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from orchestrator.storage.protocol import (
    ObjectMissing,
    StorageError,
    StorageMisused,
    StorageUnavailable,
)
from orchestrator.storage.retry import retried

logger = logging.getLogger(__name__)

T = TypeVar("T")

_TEMPORARY = ".tmp"
# A person must act before these can succeed. EPERM is not among them: lost mounts answer it. ENXIO, EINVAL: a socket
# or a pipe where a file should be.
_PERMANENT = frozenset(
    {
        errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG, errno.EROFS,
        errno.ENXIO, errno.EINVAL,
    }
)  # fmt: skip


class StaleHandle(StorageUnavailable):
    """A file or folder was replaced or removed on the server while this mount still had the old one.

    The same call soon sees the new one, so it is tried again.
    """


@dataclass(frozen=True, slots=True)
class DirectoryStorage:
    """Objects are files below `root`, which must exist.

    The root is never created here. A missing root may be a mount whose server is away, and a new directory would look
    like an empty run. For the same reason every call that reads or writes and finds no root raises StorageUnavailable:
    nothing seems to be deleted. wait: pauses between retries.
    """

    root: Path
    wait: Callable[[float], None] = field(default=time.sleep, repr=False, compare=False)

    def put(self, name: str, content: bytes) -> None:
        """Write a temporary file, sync it, and replace the target. A failed close is a failed put."""
        self._answer(name, lambda: self._put(self.path(name), content))

    def get(self, name: str) -> bytes:
        """Read the whole file."""
        return self._answer(name, lambda: _read(self.path(name)))

    def get_range(self, name: str, start: int, size: int) -> bytes:
        """Read a part of the file."""
        return self._answer(name, lambda: _read(self.path(name), start, size))

    def list(self, prefix: str) -> list[str]:
        """Walk the folder that the prefix names; a missing folder has no entries, and a broken link is no folder."""
        folder = prefix.rpartition("/")[0]
        start = f"{folder}/" if folder else ""
        try:
            names = self._answer(folder or ".", lambda: list(_names_below(self.root / folder, start)))
        except ObjectMissing:
            return []
        return sorted(name for name in names if name.startswith(prefix))

    def delete(self, name: str) -> None:
        """Unlink the file, and its folder when that is empty now."""
        path = self.path(name)
        self._answer(name, lambda: path.unlink(missing_ok=True))
        if path.parent != self.root:
            with contextlib.suppress(OSError):  # other objects are still there
                path.parent.rmdir()

    def create(self, name: str, content: bytes) -> bool:
        """Create the file with O_EXCL, which has exactly one winner on every file system that was measured.

        The content is written after the name, so a reader may see the file shorter for a moment. If the name is taken
        the content is compared: an earlier try of ours may have succeeded and lost its reply. On sshfs losers may get
        EPERM, so that also means to look whether the name is there.
        """
        path = self.path(name)

        def attempt() -> bool:
            try:
                self._write_with_parents(path, content)
            except (FileExistsError, PermissionError) as refused:
                try:
                    return _read(path) == content
                except FileNotFoundError:
                    if isinstance(refused, FileExistsError):  # this mount does not show the new name yet
                        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from None
                    raise refused from None
            return True

        return self._answer(name, attempt)

    def tidy(self, folder: str) -> None:
        """Remove the temporary files of writers that were killed, and folders that hold nothing else."""
        self._answer(folder, lambda: _remove_temporary_files(self.path(folder.removesuffix("/"))))

    def describe(self) -> str:
        """The directory's path."""
        return str(self.root)

    def path(self, name: str) -> Path:
        """The file of an object. Raises ValueError for a name that leads out of the storage."""
        parts = name.split("/")
        if not name or any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"object name {name!r} must be a relative path without '.' and '..'")
        return self.root.joinpath(*parts)

    def _answer(self, name: str, operation: Callable[[], T]) -> T:
        """What the operation returns. A stale handle is tried again; every OSError becomes a StorageError.

        What is missing below a root that is away, or below a broken link, is unavailable.
        """

        def once() -> T:
            with storage_errors(name):
                return operation()

        try:
            return retried(once, StaleHandle, self.wait)
        except (ObjectMissing, StaleHandle) as error:
            if away := self._away(name):
                raise StorageUnavailable(name, f"{away} is not there") from error
            raise

    def _away(self, name: str) -> Path | None:
        """The root if it is no folder, or the target of a broken link on the way to the object."""
        way = itertools.accumulate(name.split("/"), Path.joinpath, initial=self.root)
        try:
            if not self.root.is_dir():
                return self.root
            broken = (path for path in way if path.is_symlink() and not path.exists())
            return next((path.readlink() for path in broken), None)
        except OSError:  # such as ESTALE of the root
            return self.root

    def _put(self, target: Path, content: bytes) -> None:
        unique = f".{target.name}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}{_TEMPORARY}"
        temporary = target.with_name(unique)
        try:
            self._write_with_parents(temporary, content)
            self._replace(temporary, target)
        except OSError:
            with contextlib.suppress(OSError):  # the first error says what is wrong
                temporary.unlink()
            raise
        _sync_directory(target.parent)

    def _replace(self, temporary: Path, target: Path) -> None:
        try:
            temporary.replace(target)
        except FileNotFoundError:
            if not self.root.is_dir():
                raise
            # Another host removed the folder. Or the rename succeeded, its reply was lost, and the mount repeated it.
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from None

    def _write_with_parents(self, path: Path, content: bytes) -> None:
        """Write a new file, in folders that are made where they are missing. The root is never made."""
        folders = [folder for folder in path.parents if folder != self.root and self.root in folder.parents]
        for folder in reversed(folders):
            # A mount may not show the new folder yet. If the name is not a folder, opening the file fails.
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
        try:
            _write_new(path, content)
        except FileNotFoundError:
            if not folders or not self.root.is_dir():
                raise
            # Another host removed the empty folder, and this mount believed that it was still there.
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from None


def _write_new(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        view = memoryview(content)
        while view:
            view = view[file.write(view) :]
        os.fsync(file.fileno())


def _read(path: Path, start: int = 0, size: int = -1) -> bytes:
    # A FIFO at this name would block the open for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        file = os.fdopen(descriptor, "rb")
    except OSError:  # for a folder; `fdopen` leaves its descriptor open
        os.close(descriptor)
        raise
    with file:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            # A link to /dev/zero would never end.
            raise OSError(errno.EINVAL, "it is a device")
        if start:
            file.seek(start)
        return file.read(size)


def _names_below(folder: Path, prefix: str) -> Iterator[str]:
    for entry in list(os.scandir(folder)):
        if entry.is_dir(follow_symlinks=False):
            try:
                yield from _names_below(Path(entry.path), f"{prefix}{entry.name}/")
            except (FileNotFoundError, NotADirectoryError):
                continue  # removed or replaced since it was listed
            except PermissionError as error:
                if error.errno != errno.EACCES:  # EPERM is the answer of a lost mount
                    raise
                _warn_of_unlisted(entry.path, error.strerror)
        elif not entry.name.endswith(_TEMPORARY):
            yield prefix + entry.name


@functools.lru_cache(maxsize=1024)
def _warn_of_unlisted(path: str, reason: str) -> None:
    """Warn once of each folder: a launch lists the checkpoints of a run several times."""
    logger.warning("%s cannot be listed (%s); let this user read it, or move it away", path, reason)


def _remove_temporary_files(folder: Path) -> None:
    for directory, _, names in os.walk(folder):
        temporary = [name for name in names if name.startswith(".") and name.endswith(_TEMPORARY)]
        for name in temporary:
            Path(directory, name).unlink(missing_ok=True)
        if temporary:
            with contextlib.suppress(OSError):  # other files are still there
                Path(directory).rmdir()


def _sync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def storage_errors(name: str) -> Iterator[None]:
    """Raise an OSError of the block as a StorageError. name: of the file in it, for the message."""
    try:
        yield
    except OSError as error:
        raise storage_error(name, error) from error


def storage_error(name: str, error: OSError) -> StorageError:
    """The StorageError that an OSError stands for. name: of the file, for the message."""
    detail = error.strerror or str(error)
    if error.errno == errno.ENOENT:
        return ObjectMissing(name, detail)
    if error.errno == errno.ESTALE:
        return StaleHandle(name, detail)
    if error.errno in _PERMANENT:
        return StorageMisused(name, detail)
    return StorageUnavailable(name, detail)
