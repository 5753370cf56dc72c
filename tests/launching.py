"""What tests that start `launch` in a process of its own share: following its events."""

import hashlib
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from orchestrator.engine.checkpoints import checkpoint_names, step_of
from orchestrator.job.run_directory import RunDirectory
from orchestrator.telemetry.event import Event
from orchestrator.telemetry.events import CheckpointSaved
from orchestrator.telemetry.record import EventReader, follow

E = TypeVar("E", bound=Event)
# The fixture `note_seconds`: a run, and the unix time of a fault or of launching again after one.
NoteSeconds = Callable[[RunDirectory, float], None]


def reuse_graphs(clean: RunDirectory, run: RunDirectory) -> None:
    """Give a new run the compiled graphs of a finished one.

    Compiling takes a third of a short launch, and few tests are about it. A run with another recipe or other data
    than the finished one does not use these graphs.
    """
    if clean.compiled.exists() and not run.root.exists():
        shutil.copytree(clean.compiled, run.compiled)


def wait_for(
    run: RunDirectory, kind: type[E], wanted: Callable[[E], bool] = lambda event: True, since: float = 0.0
) -> E:
    """The first event of this kind that is wanted, recorded after the unix time `since`.

    The test's time-out bounds the wait.
    """
    for recorded in follow(run.storage, threading.Event()):
        if isinstance(recorded.event, kind) and recorded.t > since and wanted(recorded.event):
            return recorded.event
    raise AssertionError("the follower ended by itself")


def wait_for_checkpoint(run: RunDirectory, step: int) -> CheckpointSaved:
    """The event of the first checkpoint of this step or a later one."""
    return wait_for(run, CheckpointSaved, lambda saved: saved.step >= step)


def events_of(run: RunDirectory, kind: type[E]) -> list[E]:
    """All events of one kind so far."""
    return [r.event for r in EventReader(run.storage).read() if isinstance(r.event, kind)]


def times_of(run: RunDirectory, kind: type[Event]) -> list[float]:
    """Unix times of all events of one kind so far."""
    return [r.t for r in EventReader(run.storage).read() if isinstance(r.event, kind)]


def names_of(run: RunDirectory) -> list[str]:
    """Names of all events so far."""
    return [r.event.name for r in EventReader(run.storage).read()]


def last_checkpoint(run: RunDirectory, step: int) -> Path:
    """The directory of the newest checkpoint, which must be of this step."""
    name = checkpoint_names(run.storage)[-1]
    assert step_of(name) == step
    return run.checkpoints / name


def checksums(run: RunDirectory, step: int) -> dict[str, str]:
    """Checksums of the newest checkpoint's files, which must be of this step; `state.json` names versions, too."""
    files = [path for path in last_checkpoint(run, step).iterdir() if path.name != "state.json"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
