"""A directory as storage: local disk, NFS or any other mount that every host reaches."""

import contextlib
import errno
import logging
import os
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.storage.protocol import (
    ObjectMissing,
    StorageError,
    StorageMisused,
    StorageUnavailable,
)

logger = logging.getLogger(__name__)

_TEMPORARY = ".tmp"
# A person must act before these can succeed. EPERM is not among them: lost mounts answer it.
_PERMANENT = frozenset(
    {errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG, errno.EROFS}
)


@dataclass(frozen=True, slots=True)
class DirectoryStorage:
    """Objects are files below `root`, which must exist.

    The root is never made here: a missing root may be the mount point of a server that is away, and a new
    directory would hide the run below it.
    """

    root: Path

    def put(self, name: str, content: bytes) -> None:
        """Write a temporary file, sync it, and replace the target. A failed close is a failed put."""
        target = self.path(name)
        unique = f".{target.name}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}{_TEMPORARY}"
        temporary = target.with_name(unique)
        with storage_errors(name):
            self._make_parents(target)
            try:
                _write_new(temporary, content)
                temporary.replace(target)
            except OSError:
                with contextlib.suppress(OSError):  # the first error says what is wrong
                    temporary.unlink(missing_ok=True)
                raise
            _sync_directory(target.parent)

    def get(self, name: str) -> bytes:
        """Read the whole file."""
        with storage_errors(name):
            return _read(self.path(name))

    def get_range(self, name: str, start: int, size: int) -> bytes:
        """Read a part of the file."""
        with storage_errors(name):
            return _read(self.path(name), start, size)

    def list(self, prefix: str) -> list[str]:
        """Walk the folder that the prefix names; a folder that is gone has no entries."""
        folder = prefix.rpartition("/")[0]
        with storage_errors(prefix):
            names = _names_below(self.root / folder, f"{folder}/" if folder else "")
        return sorted(name for name in names if name.startswith(prefix))

    def delete(self, name: str) -> None:
        """Unlink the file, and its folder when that is empty now."""
        path = self.path(name)
        with storage_errors(name):
            path.unlink(missing_ok=True)
        if path.parent != self.root:
            with contextlib.suppress(OSError):  # other objects are still there
                path.parent.rmdir()

    def create(self, name: str, content: bytes) -> bool:
        """O_EXCL has one winner on every file system that was measured; the content follows the name.

        A reader may see the file shorter for a moment. When the name is taken the content is compared: an
        answer that was lost on the way leaves our own content there. Losers may see EPERM on sshfs.
        """
        path = self.path(name)
        with storage_errors(name):
            self._make_parents(path)
            try:
                _write_new(path, content)
            except (FileExistsError, PermissionError):
                return _read(path) == content
        return True

    def describe(self) -> str:
        """The directory's path."""
        return str(self.root)

    def path(self, name: str) -> Path:
        """The file of an object. Raises ValueError for a name that leads out of the storage."""
        parts = name.split("/")
        if not name or any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"object name {name!r} must be a relative path without '.' and '..'")
        return self.root.joinpath(*parts)

    def _make_parents(self, path: Path) -> None:
        """Make the folders between root and the file, but never the root."""
        missing = [
            folder for folder in path.parents if folder.is_relative_to(self.root) and folder != self.root
        ]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)


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
    with os.fdopen(descriptor, "rb") as file:
        if start:
            file.seek(start)
        return file.read(size)


def _names_below(folder: Path, prefix: str) -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            try:
                yield from _names_below(Path(entry.path), f"{prefix}{entry.name}/")
            except PermissionError as error:
                logger.warning("%s cannot be listed (%s)", entry.path, error.strerror)
        elif not entry.name.endswith(_TEMPORARY):
            yield prefix + entry.name


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
        raise _storage_error(name, error) from error


def _storage_error(name: str, error: OSError) -> StorageError:
    detail = error.strerror or str(error)
    if error.errno == errno.ENOENT:
        return ObjectMissing(name, detail)
    if error.errno in _PERMANENT:
        return StorageMisused(name, detail)
    return StorageUnavailable(name, detail)
