"""System calls below a directory that fail as on a network mount, for tests of `DirectoryStorage`.

The files are real. Each call takes the next fault of a list, if one is left.
"""

import errno
import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

import pytest


class Fault(Enum):
    """none: the call works. stale, refused: it fails and nothing happens.

    lost: it happens and the caller sees an error. late: the bytes are lost, and the error comes at close.
    """

    NONE = "none"
    STALE = "stale"
    REFUSED = "refused"
    LOST = "lost"
    LATE = "late"


class FailingFiles:
    """The calls below `root`. away: all of them fail. hidden: names that listings do not show yet.

    ghosts: names that listings still show. eperm: an exclusive open of a name that is taken gives EPERM.
    """

    def __init__(self, root: Path, faults: Iterable[Fault] = ()):
        self.root, self.faults = root, list(faults)
        self.away = self.eperm = False
        self.hidden: set[str] = set()
        self.ghosts: set[str] = set()
        self._descriptors: set[int] = set()
        self._open, self._fdopen, self._scandir = os.open, os.fdopen, os.scandir

    def covers(self, path: Any) -> bool:
        """Whether the path is below the directory."""
        return isinstance(path, str | os.PathLike) and Path(path).is_relative_to(self.root)

    def call(
        self, path: Any, happen: Callable[[], Any], undo: Callable[[Any], object] = lambda made: None
    ) -> Any:
        """Let a call happen or fail. undo: frees the result of a call whose reply is lost."""
        if self.away:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), str(path))
        fault = self.faults.pop(0) if self.faults else Fault.NONE
        if fault is Fault.STALE:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        if fault in (Fault.REFUSED, Fault.LATE):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        made = happen()
        if fault is Fault.LOST:
            undo(made)
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return made

    def open(self, path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        def happen() -> int:
            try:
                return self._open(path, flags, *arguments, **options)
            except FileExistsError:
                code = errno.EPERM if self.eperm else errno.EEXIST
                raise OSError(code, os.strerror(code), str(path)) from None

        if not self.covers(path):
            return self._open(path, flags, *arguments, **options)
        descriptor: int = self.call(path, happen, os.close)
        self._descriptors.add(descriptor)
        return descriptor

    def fdopen(self, descriptor: int, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if descriptor in self._descriptors:
            self._descriptors.discard(descriptor)
            if mode == "wb":
                return LateFile(descriptor, self)
        return self._fdopen(descriptor, mode, *arguments, **options)

    def scandir(self, path: Any) -> Any:
        if not self.covers(path):
            return self._scandir(path)
        entries = self.call(path, lambda: list(self._scandir(path)))
        shown = [entry for entry in entries if entry.name not in self.hidden]
        return Listing([*shown, *(Ghost(path, name) for name in self.ghosts if Path(path) == self.root)])

    def changing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """A call that changes a name."""

        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            if not self.covers(path):
                return original(path, *arguments, **options)
            return self.call(path, lambda: original(path, *arguments, **options))

        return call


class LateFile(io.FileIO):
    """A written file whose error, if any, comes at close."""

    def __init__(self, descriptor: int, files: FailingFiles):
        super().__init__(descriptor, "wb")
        self._files = files

    def close(self) -> None:
        if self.closed:
            return
        fault = self._files.faults.pop(0) if self._files.faults else Fault.NONE
        if fault is not Fault.NONE:
            self.truncate(self.tell() // 2)
        super().close()
        if fault is not Fault.NONE:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


class Listing(list[Any]):
    """What `scandir` returns: it can be iterated and is a context manager."""

    def __enter__(self) -> "Listing":
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to close."""


class Ghost:
    """An entry of a listing whose file is gone."""

    def __init__(self, folder: Any, name: str):
        self.path, self.name = str(Path(folder) / name), name

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return False


@contextmanager
def failing_files(root: Path, faults: Iterable[Fault] = ()) -> Iterator[FailingFiles]:
    """Inject the faults into this process's calls below `root`."""
    files = FailingFiles(root, faults)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "unlink", "mkdir", "rmdir"):
            patch.setattr(os, name, files.changing(getattr(os, name)))
        patch.setattr(os, "open", files.open)
        patch.setattr(os, "fdopen", files.fdopen)
        patch.setattr(os, "scandir", files.scandir)
        yield files
