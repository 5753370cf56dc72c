"""events.jsonl: what happened and when, one JSON object a line.

Written by several processes of a run (the launcher, the group's controller, rank 0): each
line is one O_APPEND write, so lines never mix. A reader skips a line that is not a whole event.

Storage that is away or full stops nobody: lines that it refuses wait in the process's memory, in
order, and are tried again every second, with the next event, and when the process ends.
"""

import atexit
import errno
import json
import logging
import os
import stat
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.event_schema import is_event
from sdnet.errors import InputError
from sdnet.files import is_permanent, open_regular

logger = logging.getLogger(__name__)

_TRY_AGAIN_S = 1.0
# The lines of this process that storage has refused so far, by file, oldest first.
_waiting: dict[Path, deque[bytes]] = {}
_lock = threading.Lock()
# Files whose skipped lines this process has reported: followers read them again and again.
_reported: set[Path] = set()


@dataclass(frozen=True, slots=True)
class EventLog:
    """Appends to, and reads, one run's events."""

    path: Path

    def emit(self, event: str, **fields: Any) -> None:
        """Append `{"t": unix seconds, "event": event, ...}`; the fields must be JSON values."""
        line = json.dumps({"t": round(time.time(), 3), "event": event, **fields}, allow_nan=False) + "\n"
        with _lock:
            _waiting.setdefault(self.path, deque()).append(line.encode())
            refused = _write(self.path)
            if refused is not None and len(_waiting[self.path]) == 1:
                logger.warning("%s cannot be written (%s); events wait in memory", self.path, refused)
                _try_later(self.path)

    def read(self) -> list[dict[str, Any]]:
        """All events so far, in the order of the file; none if the file is not there.

        Raises InputError for what can never be read, such as a folder, and OSError when storage fails.
        """
        return self.read_from(0)[0]

    def read_from(self, position: int) -> tuple[list[dict[str, Any]], int]:
        """Events that begin at byte `position` or later, and the position after the last whole line."""
        try:
            with open_regular(self.path) as file:
                file.seek(position)
                whole, newline, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return [], position
        except OSError as error:
            if is_permanent(error):
                raise InputError(
                    f"{self.path} cannot be read ({error.strerror}); make it a file that you may read, "
                    "or move it away"
                ) from None
            raise
        lines = whole.splitlines()
        events = [event for line in lines if (event := _parse(line)) is not None]
        self._report_skipped(len(lines) - len(events))
        return events, position + len(whole) + len(newline)

    def _report_skipped(self, number: int) -> None:
        if number and self.path not in _reported:
            _reported.add(self.path)
            logger.warning("%s: skipped %s line(s) that are not whole events", self.path, number)


def _write(path: Path) -> OSError | None:
    """Append the lines that wait for this file; why some still wait, if so. Call it with the lock held."""
    lines = _waiting[path]
    try:
        # O_NONBLOCK: a FIFO would otherwise wait for its other end.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o666)
        try:
            while lines:
                _append(descriptor, lines[0])
                lines.popleft()
        finally:
            os.close(descriptor)
    except OSError as error:
        return error
    return None


def _append(descriptor: int, line: bytes) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file")
    size = found.st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        line = b"\n" + line  # a full disk has cut the line before it
    if os.write(descriptor, line) != len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _try_later(path: Path) -> None:
    timer = threading.Timer(_TRY_AGAIN_S, _try_again, [path])
    timer.daemon = True
    timer.start()


def _try_again(path: Path) -> None:
    with _lock:
        if _write(path) is not None:
            _try_later(path)


@atexit.register
def _write_what_waits() -> None:
    with _lock:
        for path in (path for path, lines in _waiting.items() if lines):
            _write(path)


def _parse(line: bytes) -> dict[str, Any] | None:
    """The event of a line; None for half a line that a full disk left behind, or one without its keys."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if is_event(event) else None
