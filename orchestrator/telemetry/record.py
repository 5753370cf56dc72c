"""Writes and reads a run's events: immutable segments of JSON lines, one writer each.

A writer is one process. It keeps lines in memory until storage has taken them, so unavailable or full
storage loses no event and blocks no process. Segments are `events/<lease>/<writer>/<number>.jsonl`. Readers merge
them by lease, then by time, because the clocks of two launchers may differ. `events.jsonl` is the merged file, which
`merge_events` writes when a launch ends.
"""

import atexit
import contextlib
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from orchestrator.storage import ObjectMissing, RunLost, Storage, StorageError
from orchestrator.telemetry import events as schemas
from orchestrator.telemetry.event import Event, Recorded, UnknownEvent
from orchestrator.telemetry.segments import FOLDER, MERGED, lease_of, unlisted_segments
from orchestrator.threads import start_without_signals

logger = logging.getLogger(__name__)

SCHEMAS: dict[str, type[Event]] = {
    schema.name: schema
    for schema in vars(schemas).values()
    if isinstance(schema, type) and issubclass(schema, Event) and schema is not Event
}
# How long a line may wait for others before it is written. Shorter means more segments.
_FLUSH_AFTER_S = 0.2
_RETRY_AFTER_S = 1.0
_RETRY_AT_CLOSE_S = (0.5, 1.0, 2.0)
_FOLLOW_EVERY_S = 0.3
# Year 5138. Calendar functions fail for much later times, which occur only in damaged lines.
_LATEST_S = 1e11
# About 20 MB of lines: hours of events while storage is away.
_MOST_LINES = 100_000


class EventWriter:
    """Records the events of this process. Use it as a context manager, or call `close`.

    A background thread writes, so `record` never waits for storage. At most `_MOST_LINES` lines wait; when storage is
    away for longer the oldest are dropped, and an `events_lost` event says how many. `close` tries for some seconds.
    What storage still refuses then is reported in the log and dropped.

    guard: called before each write. It raises RunLost when another launch owns the run; then nothing more is written.
    lease: number of the lease under which the process works, 0 for none.
    """

    def __init__(
        self,
        storage: Storage,
        clock: Callable[[], float] = time.time,
        guard: Callable[[], None] = lambda: None,
        wait: Callable[[float], None] = time.sleep,
        lease: int = 0,
    ):
        self._storage, self._clock, self._guard, self._wait = storage, clock, guard, wait
        self._prefix = f"{FOLDER}{lease:06d}/{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}/"
        self._next = 0
        # A refused segment is tried again unchanged: it may be there, and readers look at each only once.
        self._segment: bytes | None = None
        self._dropped, self._dropped_at = 0, 0.0
        self._refused = self._lost = False
        self._lines: deque[tuple[float, str]] = deque()
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._write_behind, name="event writer", daemon=True)
        start_without_signals(self._thread)
        atexit.register(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def record(self, event: Event) -> None:
        """Record the event with the current time."""
        t = self._clock()
        line = json.dumps(event.to_dict(t), allow_nan=False)
        with self._changed:
            if self._lost:
                return
            self._lines.append((t, line))
            if len(self._lines) > _MOST_LINES:
                self._dropped_at, _ = self._lines.popleft()
                self._dropped += 1
            self._changed.notify()

    def flush(self) -> bool:
        """Write all lines that wait; whether storage took them."""
        with self._writing:
            try:
                while self._take_segment() is not None:
                    self._guard()
                    self._storage.put(f"{self._prefix}{self._next:06d}.jsonl", self._segment or b"")
                    self._segment, self._refused = None, False
                    self._next += 1
            except RunLost as error:
                logger.warning("events are not written any more: %s", error)
                with self._changed:
                    self._lost = True
                    self._lines.clear()
                self._segment = None
            except StorageError as error:
                if not self._refused:
                    logger.warning("events wait in memory: %s", error)
                self._refused = True
                return False
            return True

    def close(self) -> None:
        """Write what waits and stop the thread. Calling it again does nothing."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify()
        self._thread.join()
        atexit.unregister(self.close)
        for pause_s in (*_RETRY_AT_CLOSE_S, None):
            if self.flush():
                return
            if pause_s is not None:
                self._wait(pause_s)
        with self._changed:
            waiting = len(self._lines) + (self._segment or b"").count(b"\n")
        logger.warning("%d event(s) were not written", waiting)

    def _take_segment(self) -> bytes | None:
        """The segment to write next: the one that was refused, or all lines that wait; None when there are none."""
        if self._segment is None:
            with self._changed:
                lines = [line for _, line in self._lines]
                if self._dropped:
                    lost = schemas.EventsLost(count=self._dropped)
                    lines.insert(0, json.dumps(lost.to_dict(self._dropped_at)))
                self._lines.clear()
                self._dropped = 0
            if lines:
                self._segment = ("\n".join(lines) + "\n").encode()
        return self._segment

    def _write_behind(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._segment or self._closed)
                if self._closed:
                    return
                # Let a burst of events share one segment.
                self._changed.wait_for(lambda: self._closed, timeout=_FLUSH_AFTER_S)
            if not self.flush():
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, timeout=_RETRY_AFTER_S)


@dataclass(frozen=True, slots=True)
class _Read:
    """An event with its place in the merged order. when: its time, but never before its writer's last event."""

    lease: int
    when: float
    name: str
    line: int
    recorded: Recorded

    @property
    def place(self) -> tuple[int, float, str, int]:
        return self.lease, self.when, self.name, self.line


class EventReader:
    """Reads a run's events and remembers what it has seen: segments never change.

    A run of an older version has only `events.jsonl`. So both are read, and a line that is in both counts once.
    Lines of `events.jsonl` keep their order and come first.

    Events are sorted by lease, then by time, but events of one writer keep their order: its clock may have been set
    back.
    """

    def __init__(self, storage: Storage):
        self._storage = storage
        self._seen: set[str] = set()
        self._latest: dict[str, float] = {}
        self._merged: Counter[str] = Counter()
        self._all: list[_Read] = []

    def read(self) -> list[Recorded]:
        """Every event so far, also of segments that are not listed yet. Raises StorageError."""
        self.new(unlisted=True)
        return [entry.recorded for entry in sorted(self._all, key=lambda entry: entry.place)]

    def new(self, unlisted: bool = False) -> list[Recorded]:
        """The events that no earlier call has returned. Raises StorageError.

        unlisted: look up the next segment of each writer by name, whatever the listing shows.
        """
        # Nothing counts as seen before everything is read: storage may fail in between.
        contents = {}
        for name in (MERGED, *self._storage.list(FOLDER)):
            if name not in self._seen:
                # A listing is a hint, and only a run that has ended once has a merged file.
                with contextlib.suppress(ObjectMissing):
                    contents[name] = self._storage.get(name)
        if unlisted:
            contents |= unlisted_segments(self._storage, self._seen | contents.keys())
        self._seen |= {MERGED, *contents}
        found = [entry for name, content in contents.items() for entry in self._entries(name, content)]
        found.sort(key=lambda entry: entry.place)
        self._all += found
        return [entry.recorded for entry in found]

    def _entries(self, name: str, content: bytes) -> Iterator[_Read]:
        writer, skipped = name.rpartition("/")[0], 0
        for number, line in enumerate(content.splitlines()):
            recorded = parse(line)
            if recorded is None:
                skipped += 1
            elif not self._is_merged(name, recorded):
                when = max(recorded.t, self._latest.get(writer, 0.0))
                self._latest[writer] = when
                yield _Read(lease_of(name), when, name, number, recorded)
        if skipped:
            logger.warning(
                "%s/%s: skipped %d line(s) that are no events", self._storage.describe(), name, skipped
            )

    def _is_merged(self, name: str, recorded: Recorded) -> bool:
        """Whether `events.jsonl` already contained this event of a segment; each of its lines matches one event."""
        if name != MERGED and not self._merged:
            return False
        key = json.dumps(recorded_to_dict(recorded), sort_keys=True)
        if name == MERGED:
            self._merged[key] += 1
            return False
        if self._merged[key] == 0:
            return False
        self._merged[key] -= 1
        return True


def follow(storage: Storage, stop: threading.Event, reader: EventReader | None = None) -> Iterator[Recorded]:
    """Yield events as they appear. After `stop` is set, yield the events that are in storage and end.

    reader: yields only events that it has not read yet. While storage is unavailable, no event appears and no error.
    """
    reader = reader or EventReader(storage)
    while True:
        ending = stop.is_set()
        try:
            new = reader.new()
        except StorageError:
            new = []
        yield from new
        if ending:
            return
        stop.wait(_FOLLOW_EVERY_S)


def merge_events(storage: Storage) -> None:
    """Write `events.jsonl` from all segments and its earlier content. Raises StorageError."""
    lines = [json.dumps(recorded_to_dict(recorded)) for recorded in EventReader(storage).read()]
    storage.put(MERGED, "".join(f"{line}\n" for line in lines).encode())


def parse(line: bytes) -> Recorded | None:
    """The event of a line of JSON; None if the line is not an event."""
    try:
        raw: Any = json.loads(line)
        t, name = raw["t"], raw["event"]
    except (ValueError, RecursionError, KeyError, TypeError, IndexError):
        return None
    if type(t) not in (int, float) or not 0 <= t < _LATEST_S or not isinstance(name, str):
        return None
    try:
        return Recorded(float(t), SCHEMAS[name].from_dict(raw))
    except (KeyError, TypeError, ValueError):
        fields = {key: value for key, value in raw.items() if key not in ("t", "event")}
        return Recorded(float(t), UnknownEvent(event=name, fields=fields))


def recorded_to_dict(recorded: Recorded) -> dict[str, object]:
    """The JSON object on disk; an unknown event keeps all of its fields."""
    if isinstance(recorded.event, UnknownEvent):
        return {"t": recorded.t, "event": recorded.event.event, **recorded.event.fields}
    return recorded.event.to_dict(recorded.t)
