"""Typed events on disk, their writer and readers, and the run's state."""

import dataclasses
import json
import threading
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import CorruptData
from orchestrator.storage import DirectoryStorage, StorageUnavailable
from orchestrator.telemetry.describe import events_page
from orchestrator.telemetry.event import Event, UnknownEvent
from orchestrator.telemetry.events import (
    CheckpointSaved,
    Epoch,
    FaultInjected,
    FirstStep,
    RankEnd,
    RunStarted,
    StageFinished,
)
from orchestrator.telemetry.record import (
    SCHEMAS,
    EventReader,
    EventWriter,
    follow,
    has_events,
    merge_events,
    parse,
)
from orchestrator.telemetry.state import Attempt, Process, RunState, read_state, write_state
from tests.unit.engine.fakes import MemoryStorage

ROOT = Path(__file__).resolve().parents[2]
SIMPLE: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=8), int: st.integers(-(2**53), 2**53), bool: st.booleans(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    RankEnd: st.builds(RankEnd, st.integers(0, 9), st.text(), st.text(), st.booleans()),
}  # fmt: skip


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type."""
    arguments = typing.get_args(hint)
    if hint in SIMPLE:
        return SIMPLE[hint]
    if typing.get_origin(hint) is tuple:
        return st.lists(values_of(arguments[0]), max_size=3).map(tuple)
    if typing.get_origin(hint) is dict:
        return st.dictionaries(st.text(max_size=3), values_of(arguments[1]), max_size=3)
    return st.none() | values_of(next(a for a in arguments if a is not type(None)))


def events_of_every_schema() -> st.SearchStrategy[Event]:
    known = [schema for schema in SCHEMAS.values() if schema is not UnknownEvent]
    return st.one_of(
        [st.builds(schema, **{n: values_of(h) for n, h in fields_of(schema).items()}) for schema in known]
    )


def fields_of(schema: type[Event]) -> dict[str, Any]:
    hints = typing.get_type_hints(schema)
    return {field.name: hints[field.name] for field in dataclasses.fields(schema)}


@given(event=events_of_every_schema())
def test_every_event_comes_back_from_disk_as_it_was(event: Event) -> None:
    found = parse(json.dumps(event.to_dict(12.5)).encode())
    assert found is not None and found.event == event and found.t == 12.5


@given(
    event=events_of_every_schema(),
    damage=st.dictionaries(
        st.text(max_size=6), st.none() | st.integers() | st.text() | st.lists(st.integers())
    ),
    drop=st.sets(st.integers(0, 9)),
)
def test_reading_an_event_of_another_version_never_fails(
    event: Event, damage: dict[str, Any], drop: set[int]
) -> None:
    raw = {**event.to_dict(1.0), **{key: value for key, value in damage.items() if key not in ("t", "event")}}
    raw = {key: value for n, (key, value) in enumerate(raw.items()) if n not in drop or key in ("t", "event")}
    found = parse(json.dumps(raw).encode())
    assert found is not None and isinstance(found.event, Event)


@pytest.mark.parametrize(
    "line",
    [
        b"", b"{", b"[]", b"1", b"null", b'"t"', b'{"t": 1}', b'{"event": "x"}', b'{"t": "a", "event": 1}', b"\xff",
        b'{"t": NaN, "event": "x"}', b'{"t": 1e12, "event": "x"}', b'{"t": true, "event": "x"}', b"[" * 100_000,
        b'{"t": 1, "event": ["x"]}',
    ],
)  # fmt: skip
def test_a_line_that_is_no_event_is_skipped(line: bytes) -> None:
    assert parse(line) is None


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3),
    max_leaves=4,
)


@given(event=events_of_every_schema(), values=st.lists(JSON_VALUES, min_size=1, max_size=3))
def test_a_field_of_any_other_type_makes_an_unknown_event_and_no_error(
    event: Event, values: list[Any]
) -> None:
    raw = event.to_dict(1.0)
    for name, value in zip([key for key in raw if key not in ("t", "event")], values, strict=False):
        raw[name] = value
    found = parse(json.dumps(raw).encode())
    assert found is not None and type(found.event) in (type(event), UnknownEvent)


@pytest.mark.parametrize("loss", ["NaN", "Infinity", "1" + "0" * 400])
def test_a_figure_that_nothing_can_print_or_draw_makes_an_unknown_event(loss: str) -> None:
    line = json.dumps({"t": 1.0, **EPOCH, "loss": "here"}).replace('"here"', loss)
    found = parse(line.encode())
    assert found is not None and isinstance(found.event, UnknownEvent)


EPOCH = {
    "event": "epoch",
    "epoch": 1,
    "step": 3,
    "loss": 0.5,
    "losses": {},
    "lr": 0.1,
    "steps": 3,
    "seconds": 1.5,
}
# As version 1 wrote them, whose runs have no segments.
OLD_LINES = [
    {"t": 1.0, "event": "run_started", "name": "j", "host": "h", "pid": 7, "process": "boot/pid:[1] 7 99"},
    {"t": 2.0, "event": "stage_finished", "stage": "preprocess", "patches": {"train": 4}, "skipped": 0,
     "seconds": 1.5},
    {"t": 3.0, **EPOCH, "epochs": 2, "total_steps": 6},
    {"t": 4.0, "event": "fenced", "host": "h", "pids": [3]},
    {"t": 5.0, "event": "fault_injected", "number": 1, "fault": "freeze", "rank": 0, "host": "h", "step": 3,
     "generation": 1, "at": 4.5, "proof": "seen"},
]  # fmt: skip


def old_run(storage: MemoryStorage) -> list[Event]:
    """A run directory of version 1, and its events."""
    storage.put("events.jsonl", "".join(f"{json.dumps(line)}\n" for line in OLD_LINES).encode())
    return [
        RunStarted(host="h", pid=7),
        StageFinished(stage="preprocess", patches={"train": 4}, skipped=0, seconds=1.5),
        Epoch(epoch=1, step=3, loss=0.5, losses={}, lr=0.1, steps=3, seconds=1.5, epochs=2, total_steps=6),
        UnknownEvent(event="fenced", fields={"host": "h", "pids": [3]}),
        FaultInjected(number=1, fault="freeze", rank=0, host="h", step=3, generation=1, at=4.5, proof="seen"),
    ]


def test_a_run_of_version_1_is_read_from_its_one_file() -> None:
    storage = MemoryStorage()
    expected = old_run(storage)
    reader = EventReader(storage)
    assert [recorded.event for recorded in reader.new()] == expected and reader.new() == []


def test_a_later_launch_keeps_the_events_of_version_1_and_counts_none_twice() -> None:
    storage = MemoryStorage()
    expected = old_run(storage)
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
    old_run(merged)
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


def test_events_wait_in_memory_while_storage_is_away() -> None:
    storage = MemoryStorage()
    storage.away = True
    with EventWriter(storage) as writer:
        for step in range(5):
            writer.record(FirstStep(step=step))
        assert not writer.flush()
        storage.away = False
    assert [r.event for r in EventReader(storage).read()] == [FirstStep(step=step) for step in range(5)]


def test_a_gap_is_marked_when_storage_was_away_for_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.telemetry.record._MOST_LINES", 3)
    storage = MemoryStorage()
    storage.away = True
    with EventWriter(storage) as writer:
        for step in range(5):
            writer.record(FirstStep(step=step))
        storage.away = False
    found = [recorded.event for recorded in EventReader(storage).read()]
    assert [event.name for event in found] == ["events_lost", "first_step", "first_step", "first_step"]
    assert found[0].count == 2  # type: ignore[attr-defined]


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


def test_the_page_of_events_is_the_one_that_the_schemas_give() -> None:
    assert (ROOT / "docs" / "events.md").read_text(encoding="utf-8") == events_page()


def test_every_schema_has_a_name_of_its_own_and_says_what_it_means() -> None:
    assert {Epoch.name, CheckpointSaved.name, RunStarted.name} == {"epoch", "checkpoint_saved", "run_started"}
    assert all(
        schema.__doc__ and not schema.__doc__.startswith(schema.__name__ + "(") for schema in SCHEMAS.values()
    )


STATE = RunState(
    owner=Process(host="h0", pid=3, started=15), generation=2, ranks={"0": Process(host="h1", pid=9)},
    attempts=(Attempt(kind="hang", step=4),), trained_s=2.5, failures=1, ended="x",
)  # fmt: skip


def test_the_runs_state_comes_back_as_it_was(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)
    assert read_state(storage) == RunState()
    write_state(storage, STATE)
    assert read_state(storage) == STATE


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"owner": 1}', b"\x00"])
def test_a_state_that_is_no_state_is_named_with_a_remedy(content: bytes) -> None:
    storage = MemoryStorage()
    storage.put("state.json", content)
    with pytest.raises(CorruptData, match="state.json is corrupt.*remove the file"):
        read_state(storage)


def test_a_state_cannot_be_read_while_storage_is_away() -> None:
    storage = MemoryStorage()
    storage.away = True
    with pytest.raises(StorageUnavailable):
        read_state(storage)
