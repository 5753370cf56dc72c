"""What tests that start `launch` in a process of its own share: following its events."""

import threading
from collections.abc import Callable
from typing import Any

from orchestrator.events import EventLog
from orchestrator.report.live import follow
from orchestrator.run_directory import RunDirectory

Event = dict[str, Any]
# The fixture `note_seconds`: a run, and the unix time of a fault or of launching again after one.
NoteSeconds = Callable[[RunDirectory, float], None]


def wait_for(run: RunDirectory, wanted: Callable[[Event], bool]) -> Event:
    """The first event that is wanted; the test's time-out ends a wait that is in vain."""
    return next(event for event in follow(EventLog(run.events), threading.Event()) if wanted(event))


def saved(step: int) -> Callable[[Event], bool]:
    """Whether an event tells of a checkpoint of this step or a later one."""
    return lambda event: event["event"] == "checkpoint_saved" and event["step"] >= step


def events_of(run: RunDirectory, name: str) -> list[Event]:
    """All events of one kind so far."""
    return [event for event in EventLog(run.events).read() if event["event"] == name]
