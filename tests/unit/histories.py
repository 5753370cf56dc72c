"""Events for tests of their readers: recorded ones, any that a schema allows, and the lines of version 1."""

import dataclasses
import json
import typing
from typing import Any

from hypothesis import strategies as st

from orchestrator.storage import Storage
from orchestrator.telemetry.event import Event, Recorded, UnknownEvent
from orchestrator.telemetry.events import Epoch, FaultInjected, RankEnd, RunStarted, StageFinished
from orchestrator.telemetry.record import SCHEMAS, EventWriter


def recorded(*timed: tuple[float, Event]) -> list[Recorded]:
    """A history: each event with its time in unix seconds."""
    return [Recorded(t, event) for t, event in timed]


def epoch(number: int, step: int, loss: float = 0.5, **more: Any) -> Epoch:
    """An epoch that ended with this global step."""
    return Epoch(epoch=number, step=step, loss=loss, losses={}, lr=0.1, steps=3, seconds=1.5, **more)


def record(storage: Storage, *events: Event) -> None:
    """Record the events now, in this order, as one process."""
    with EventWriter(storage) as writer:
        for event in events:
            writer.record(event)


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


# As version 1 wrote them, whose runs have no segments.
OLD_LINES = [
    {"t": 1.0, "event": "run_started", "name": "j", "host": "h", "pid": 7, "process": "boot/pid:[1] 7 99"},
    {"t": 2.0, "event": "stage_finished", "stage": "preprocess", "patches": {"train": 4}, "skipped": 0,
     "seconds": 1.5},
    {"t": 3.0, "event": "epoch", "epoch": 1, "step": 3, "loss": 0.5, "losses": {}, "lr": 0.1, "steps": 3,
     "seconds": 1.5, "epochs": 2, "total_steps": 6},
    {"t": 4.0, "event": "fenced", "host": "h", "pids": [3]},
    {"t": 5.0, "event": "fault_injected", "number": 1, "fault": "freeze", "rank": 0, "host": "h", "step": 3,
     "generation": 1, "at": 4.5, "proof": "seen"},
]  # fmt: skip


def put_old_run(storage: Storage) -> list[Event]:
    """A run directory of version 1, and its events."""
    storage.put("events.jsonl", "".join(f"{json.dumps(line)}\n" for line in OLD_LINES).encode())
    return [
        RunStarted(host="h", pid=7),
        StageFinished(stage="preprocess", patches={"train": 4}, skipped=0, seconds=1.5),
        epoch(1, 3, epochs=2, total_steps=6),
        UnknownEvent(event="fenced", fields={"host": "h", "pids": [3]}),
        FaultInjected(number=1, fault="freeze", rank=0, host="h", step=3, generation=1, at=4.5, proof="seen"),
    ]
