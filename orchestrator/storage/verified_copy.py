"""Copies one shared file to an open local file, through passing failures of storage, and verifies its checksum."""

import errno
import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.storage.bounded import Background, within
from orchestrator.storage.directory import storage_error
from orchestrator.storage.protocol import StorageMisused, StorageUnavailable

_CHUNK = 4 << 20
_RETRY_EVERY_S = 0.5
_LOOK_EVERY_S = 1.0
_TRIES = 2  # a cached page of a replaced file may give other bytes once


def size_of(source: Path, stall_s: float) -> int:
    """Size of the file in bytes. Raises StorageUnavailable after `stall_s` without an answer, and StorageMisused."""
    deadline = time.monotonic() + stall_s
    while True:
        try:
            return within(stall_s, str(source), lambda: source.stat().st_size)
        except OSError as error:
            _refuse_permanent(source, error)
            if time.monotonic() > deadline:
                raise StorageUnavailable(str(source), error.strerror or str(error)) from error
        time.sleep(_RETRY_EVERY_S)


class VerifiedCopy:
    """One copy. target: an open local descriptor. stall_s: bound of the time without a new byte.

    A read from a lost mount may block for ever in the kernel, so the bytes are copied in a separate thread, and the
    calling thread watches how many have arrived.
    """

    def __init__(self, source: Path, sha256: str, target: int, stall_s: float):
        self._source, self._sha256, self._stall_s = source, sha256, stall_s
        self._target = os.dup(target)
        self._copied = 0  # bytes, over all tries; only the copying thread changes it
        self._last_error = ""  # of a read that was retried
        self._abandoned = threading.Event()

    def run(self, alive: Callable[[], object]) -> None:
        """Copy the file. alive: called about every second while bytes arrive.

        Raises StorageUnavailable, StorageMisused, InputError for another checksum, and OSError of the local disk.
        """
        call = Background(self._run_and_close)
        copied, since = 0, time.monotonic()
        try:
            while not call.finished(min(_LOOK_EVERY_S, self._stall_s)):
                if self._copied != copied:
                    copied, since = self._copied, time.monotonic()
                    alive()
                elif time.monotonic() - since > self._stall_s:
                    last_error = f", {self._last_error}" if self._last_error else ""
                    raise StorageUnavailable(
                        str(self._source), f"no data for {self._stall_s:.0f} s{last_error}"
                    )
            call.result()
        finally:
            self._abandoned.set()

    def _run_and_close(self) -> None:
        try:
            for _ in range(_TRIES):
                if self._copy_once() == self._sha256:
                    return
        finally:
            os.close(self._target)
        if not self._abandoned.is_set():
            raise InputError(
                f"{self._source} on {socket.gethostname()} is not the file that the launch began with (its "
                f"checksum is not {self._sha256[:12]}...); put the same files back on every host, and launch again"
            )

    def _copy_once(self) -> str:
        """Copy from the first byte to the last; returns the checksum. A lost connection continues where it was."""
        digest, offset, size = hashlib.sha256(), 0, -1
        while not self._abandoned.is_set():
            try:
                with _opened(self._source) as file:
                    found = os.fstat(file.fileno()).st_size
                    if size not in (-1, found):
                        break  # replaced while it was copied
                    size = found
                    file.seek(offset)
                    while offset < size and not self._abandoned.is_set():
                        chunk = file.read(min(_CHUNK, size - offset))
                        if not chunk:
                            raise OSError(errno.EIO, "the file ended early")
                        _write(self._target, chunk, offset)
                        digest.update(chunk)
                        offset += len(chunk)
                        self._copied += len(chunk)
                os.ftruncate(self._target, size)
                break
            except _LocalDisk as error:
                raise error.error from None
            except OSError as error:
                _refuse_permanent(self._source, error)
                self._last_error = error.strerror or str(error)
                self._abandoned.wait(_RETRY_EVERY_S)
        return digest.hexdigest()


class _LocalDisk(Exception):
    """Wraps an OSError of the target, to distinguish it from one of the source."""

    def __init__(self, error: OSError):
        super().__init__(error)
        self.error = error


def _refuse_permanent(source: Path, error: OSError) -> None:
    sorted_error = storage_error(str(source), error)
    if isinstance(sorted_error, StorageMisused):
        raise sorted_error from error


def _opened(path: Path) -> FileIO:
    return FileIO(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")


def _write(target: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    try:
        while view:
            written = os.pwrite(target, view, offset)
            view, offset = view[written:], offset + written
    except OSError as error:
        raise _LocalDisk(error) from error
