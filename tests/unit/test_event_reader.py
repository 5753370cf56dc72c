"""Events of several writers, of another version, and of unavailable storage are all read once, in order."""

import json
import threading
from pathlib import Path

import pytest

from orchestrator.storage import DirectoryStorage, StorageUnavailable
from orchestrator.telemetry.event import UnknownEvent
from orchestrator.telemetry.events import FirstStep
from orchestrator.telemetry.record import (
    _FLUSH_AFTER_S,
    _FOLLOW_EVERY_S,
    EventReader,
    EventWriter,
    follow,
    merge_events,
)
from orchestrator.telemetry.segments import has_events
from tests.unit.engine.fakes import MemoryStorage
from tests.unit.histories import put_old_run


def test_a_run_of_version_1_is_read_from_its_one_file() -> None:
    storage = MemoryStorage()
    expected = put_old_run(storage)
    reader = EventReader(storage)
    assert [recorded.event for recorded in reader.new()] == expected and reader.new() == []


def test_a_later_launch_keeps_the_events_of_version_1_and_counts_none_twice() -> None:
    storage = MemoryStorage()
    expected = put_old_run(storage)
    with EventWriter(storage, lambda: 9.0) as writer:
        writer.record(FirstStep(step=1))
        writer.record(FirstStep(step=1))  # two events may be equal
    expected += [FirstStep(step=1)] * 2
    for _ in range(2):
        assert [recorded.event for recorded in EventReader(storage).read()] == expected
        merge_events(storage)
    assert len(storage.get("events.jsonl").splitlines()) == len(expected)


def test_events_of_one_writer_keep_their_order_when_its_clock_was_set_back() -> None:
    storage = MemoryStorage()
    times = iter([100.0, 40.0, 101.0])
    with EventWriter(storage, lambda: next(times)) as writer:
        for step in (1, 2, 3):
            writer.record(FirstStep(step=step))
    assert [(r.t, r.event) for r in EventReader(storage).read()] == [
        (100.0, FirstStep(step=1)), (40.0, FirstStep(step=2)), (101.0, FirstStep(step=3)),
    ]  # fmt: skip


def test_a_launch_whose_clock_is_an_hour_behind_comes_after_the_launch_before_it() -> None:
    storage = MemoryStorage()
    for lease, time_s in ((1, 3_700.0), (2, 100.0)):
        with EventWriter(storage, lambda now=time_s: now, lease=lease) as writer:  # type: ignore[misc]
            writer.record(FirstStep(step=lease))
    for _ in range(2):
        assert [(r.t, r.event) for r in EventReader(storage).read()] == [
            (3_700.0, FirstStep(step=1)), (100.0, FirstStep(step=2)),
        ]  # fmt: skip
        merge_events(storage)


def test_storage_that_fails_in_the_middle_of_reading_loses_no_event() -> None:
    class FailsOnce(MemoryStorage):
        failing = "events/b/000000.jsonl"

        def get(self, name: str) -> bytes:
            if name == self.failing:
                self.failing = ""
                raise StorageUnavailable(name, "Input/output error")
            return super().get(name)

    storage = FailsOnce()
    for number, writer in enumerate("ab"):
        line = json.dumps(FirstStep(step=number).to_dict(float(number)))
        storage.put(f"events/{writer}/000000.jsonl", line.encode())
    reader = EventReader(storage)
    with pytest.raises(StorageUnavailable):
        reader.new()
    assert [recorded.event for recorded in reader.new()] == [FirstStep(step=0), FirstStep(step=1)]


def test_lines_that_are_no_events_are_counted_in_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    storage = MemoryStorage()
    storage.put("events.jsonl", b'{"t": 1, "event": "x"}\n{"t": "now", "event": "x"}\n\xff\n{"t": 3, "ev')
    assert len(EventReader(storage).read()) == 1
    assert caplog.messages == ["memory/events.jsonl: skipped 3 line(s) that are no events"]


def test_a_follower_waits_for_storage_and_ends_after_the_last_event() -> None:
    storage, stop = MemoryStorage(), threading.Event()
    storage.away = True
    with EventWriter(storage) as writer:
        following = follow(storage, stop)
        threading.Timer(0.05, lambda: setattr(storage, "away", False)).start()
        writer.record(FirstStep(step=1))
        assert next(following).event == FirstStep(step=1)
        writer.record(FirstStep(step=2))
    stop.set()
    assert [recorded.event for recorded in following] == [FirstStep(step=2)]


def test_a_run_has_events_as_soon_as_there_is_a_segment_or_a_merged_file() -> None:
    storage = MemoryStorage()
    assert not has_events(storage)
    with EventWriter(storage) as writer:
        writer.record(FirstStep(step=1))
    assert has_events(storage)
    merged = MemoryStorage()
    put_old_run(merged)
    assert has_events(merged)


def test_events_of_several_writers_are_merged_by_time(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)
    times = iter([3.0, 1.0, 2.0])
    with EventWriter(storage, lambda: next(times)) as a, EventWriter(storage, lambda: next(times)) as b:
        a.record(FirstStep(step=30))
        b.record(FirstStep(step=10))
        b.record(FirstStep(step=20))
    assert [r.event for r in EventReader(storage).read()] == [FirstStep(step=s) for s in (10, 20, 30)]
    merge_events(storage)
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [10, 20, 30]


def test_a_reader_returns_only_what_is_new(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)
    reader = EventReader(storage)
    with EventWriter(storage) as writer:
        writer.record(FirstStep(step=1))
        assert writer.flush() and [r.event for r in reader.new()] == [FirstStep(step=1)]
        writer.record(FirstStep(step=2))
        assert writer.flush() and [r.event for r in reader.new()] == [FirstStep(step=2)]
    assert reader.new() == [] and len(reader.read()) == 2


def test_a_follower_sees_each_event_while_the_writer_is_open(tmp_path: Path) -> None:
    storage, stop = DirectoryStorage(tmp_path), threading.Event()
    following = follow(storage, stop)
    with EventWriter(storage) as writer:
        for step in range(3):
            writer.record(FirstStep(step=step))
            assert next(following).event == FirstStep(step=step)


def test_writer_and_follower_together_wait_less_than_two_seconds() -> None:
    assert _FLUSH_AFTER_S + _FOLLOW_EVERY_S < 2.0


def test_a_listed_segment_that_is_gone_is_skipped() -> None:
    class Lagging(MemoryStorage):
        def list(self, prefix: str) -> list[str]:
            return [*super().list(prefix), "events/somebody/000000.jsonl"]

    storage = Lagging()
    with EventWriter(storage) as writer:
        writer.record(FirstStep(step=1))
    assert len(EventReader(storage).read()) == 1


def test_an_unknown_event_survives_the_merge() -> None:
    storage = MemoryStorage()
    line = b'{"t": 1.0, "event": "from_the_future", "wings": [2]}'
    storage.put("events/x/000000.jsonl", line + b"\n")
    assert EventReader(storage).read()[0].event == UnknownEvent(
        event="from_the_future", fields={"wings": [2]}
    )
    merge_events(storage)
    assert json.loads(storage.get("events.jsonl")) == json.loads(line)


def test_all_events_are_read_although_a_lagging_mount_lists_only_the_first_segment() -> None:
    storage = MemoryStorage()
    with EventWriter(storage) as writer:
        for step in range(5):
            writer.record(FirstStep(step=step))
            assert writer.flush()
    listed = storage.list("events/")[:1]
    storage.list = lambda prefix: listed  # type: ignore[method-assign]
    reader = EventReader(storage)
    assert [entry.event for entry in reader.new()] == [FirstStep(step=0)]
    assert [entry.event for entry in reader.read()] == [FirstStep(step=step) for step in range(5)]
    assert reader.new() == []
    merge_events(storage)
    assert storage.get("events.jsonl").count(b"\n") == 5
