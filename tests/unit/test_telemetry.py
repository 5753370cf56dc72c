"""Typed events on disk, and the run's state."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import CorruptData
from orchestrator.storage import DirectoryStorage, StorageUnavailable
from orchestrator.telemetry.describe import events_page
from orchestrator.telemetry.event import Event, UnknownEvent
from orchestrator.telemetry.events import CheckpointSaved, Epoch, RunStarted
from orchestrator.telemetry.record import SCHEMAS, parse
from orchestrator.telemetry.state import Attempt, Process, RunState, read_state, write_state
from tests.unit.engine.fakes import MemoryStorage
from tests.unit.histories import OLD_LINES, events_of_every_schema

ROOT = Path(__file__).resolve().parents[2]


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
    line = json.dumps({**OLD_LINES[2], "loss": "here"}).replace('"here"', loss)
    found = parse(line.encode())
    assert found is not None and isinstance(found.event, UnknownEvent)


def test_the_page_of_events_is_the_one_that_the_schemas_give() -> None:
    page = events_page()
    assert (ROOT / "docs" / "events.md").read_text(encoding="utf-8") == page
    assert [name for name in SCHEMAS if f"| `{name}` |" not in page] == []


def test_every_schema_has_a_name_of_its_own_and_says_what_it_means() -> None:
    assert {Epoch.name, CheckpointSaved.name, RunStarted.name} == {"epoch", "checkpoint_saved", "run_started"}
    assert all(
        schema.__doc__ and not schema.__doc__.startswith(schema.__name__ + "(") for schema in SCHEMAS.values()
    )


STATE = RunState(
    lease=1, generation=2, ranks={"0": Process(host="h1", pid=9)},
    attempts=(Attempt(kind="hang", step=4),), trained_s=2.5, failures=1, ended="x",
)  # fmt: skip


def test_the_runs_state_comes_back_as_it_was(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)
    assert read_state(storage) == RunState()
    write_state(storage, STATE)
    assert read_state(storage, lease=1) == STATE


def test_a_launch_that_lost_the_run_cannot_change_the_state_of_the_next() -> None:
    storage = MemoryStorage()
    for number in (1, 2):
        storage.create(f"lease/{number:06d}", b"")
    write_state(storage, STATE)
    assert read_state(storage) == STATE  # the second launch begins with what the first one left
    write_state(storage, replace(STATE, lease=2, saved="step_00000007"))
    write_state(storage, replace(STATE, saved="step_00000003"))
    assert read_state(storage).saved == "step_00000007"
    assert read_state(storage, lease=1).saved == "step_00000003"


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"lease": 1}', b"\x00"])
def test_an_invalid_state_is_reported_with_a_remedy(content: bytes) -> None:
    storage = MemoryStorage()
    storage.put("state/000000.json", content)
    with pytest.raises(CorruptData, match="state/000000.json is corrupt.*remove the file"):
        read_state(storage)


@pytest.mark.parametrize(
    "change",
    [
        {"ranks": {"x": {"host": "h1", "pid": 9}}},
        {"ranks": {"0": {"host": "h1", "pid": -1}}},
        {"ranks": {"0": {"host": "h1", "pid": "9"}}},
        {"attempts": [{"kind": "hang", "step": "4"}]},
        {"saved": 7},
    ],
    ids=str,
)
def test_a_state_with_a_value_that_no_launch_writes_is_reported_too(change: dict[str, object]) -> None:
    storage = MemoryStorage()
    storage.put("state/000000.json", json.dumps(asdict(STATE) | change).encode())
    with pytest.raises(CorruptData, match="state/000000.json is corrupt.*remove the file"):
        read_state(storage)


def test_a_state_cannot_be_read_while_storage_is_unavailable() -> None:
    storage = MemoryStorage()
    storage.away = True
    with pytest.raises(StorageUnavailable):
        read_state(storage)
