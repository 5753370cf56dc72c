"""events.jsonl: what happened and when, one JSON object a line.

Written by several processes of a run (the launcher, the group's controller, rank 0): each
line is one O_APPEND write, so lines never mix. A reader skips a last line that is not whole.
"""

import json
import os
import time
from collections.abc import Iterator
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
        return list(self._lines())

    def _lines(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if not line.endswith("\n"):
                    return  # a writer died, or is at it: the line is not whole
                try:
                    event = json.loads(line)
                except json.JSONDecodeError:
                    continue  # half a line that a full disk left behind
                if isinstance(event, dict) and "event" in event:
                    yield event
