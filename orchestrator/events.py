"""events.jsonl: what happened and when, one JSON object a line.

Written by several processes of a run (the launcher, the group's controller, rank 0): each
line is one O_APPEND write, so lines never mix. A reader skips a last line that is not whole.
"""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class EventLog:
    """Appends to, and reads, one run's events."""

    path: Path

    def emit(self, event: str, **fields: Any) -> None:
        """Append `{"t": unix seconds, "event": event, ...}`; the fields must be JSON values."""
        line = json.dumps({"t": round(time.time(), 3), "event": event, **fields}, allow_nan=False) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def read(self) -> list[dict[str, Any]]:
        """All events so far, in the order of the file; none if the file is not there."""
        return self.read_from(0)[0]

    def read_from(self, position: int) -> tuple[list[dict[str, Any]], int]:
        """Events that begin at byte `position` or later, and the position after the last whole line."""
        if not self.path.exists():
            return [], 0
        with self.path.open("rb") as file:
            file.seek(position)
            whole, newline, _ = file.read().rpartition(b"\n")
        events = [event for line in whole.splitlines() if (event := _parse(line)) is not None]
        return events, position + len(whole) + len(newline)


def _parse(line: bytes) -> dict[str, Any] | None:
    """The event of a line; None for half a line that a full disk left behind."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None
