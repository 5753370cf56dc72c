"""`status`: where a run stands, read from its state and its events, so that it works while others write."""

import socket
import time
from collections.abc import Sequence
from typing import Any

from orchestrator.engine.host.processes import is_alive, start_ticks
from orchestrator.job.run_directory import RunDirectory
from orchestrator.telemetry import events
from orchestrator.telemetry.event import Event, Recorded
from orchestrator.telemetry.record import EventReader
from orchestrator.telemetry.state import Owner, read_state


def read_status(run: RunDirectory, now: float | None = None) -> dict[str, Any]:
    """State, stage, epoch, step, rates and failures of a running or finished job.

    state: `not started`, `running`, how the last launch ended (`succeeded`, `failed`, `stopped`), or
    `killed` when its process is gone and could not say how it ended. Only the host of the launch can
    see that; elsewhere the state stays `running`, and `last_event_s_ago` shows for how long nothing
    was written. epochs, steps: of the whole recipe, None while they are unknown. Never negative.
    Raises StorageError, or CorruptData for a state that cannot be read.
    """
    # In this order: a launch that ends now must not look killed. It records its end before it clears the owner and
    # before its process is gone, so the events that are read last show the end.
    owner = read_state(run.storage).owner
    gone = owner is not None and is_alive(owner.mark) is False
    history = EventReader(run.storage).read()
    silent_s = round(max((now or time.time()) - history[-1].t, 0.0), 1) if history else None
    return {
        "name": run.root.name,
        "state": _state(owner, gone, history),
        "stage": _stage(history),
        **_progress(history),
        "launches": _count(history, events.RunStarted),
        "failures": _count(history, events.FailureDetected),
        "restarts": _count(history, events.GroupRestarting),
        "checkpoints": _count(history, events.CheckpointSaved),
        "last_event_s_ago": silent_s,
    }


def _state(owner: Owner | None, gone: bool, history: Sequence[Recorded]) -> str:
    """The state of a run whose owner is, or is not, gone."""
    if owner is not None and not gone:
        return "running"
    launches = (
        r.event for r in reversed(history) if isinstance(r.event, events.RunStarted | events.RunFinished)
    )
    match next(launches, None):
        case events.RunFinished(status=status):
            return status
        case events.RunStarted(host=host, pid=pid) if owner is None:
            # A launch of a version that knew no owner.
            here = host == socket.gethostname()
            return "killed" if here and start_ticks(pid) is None else "running"
    return "not started" if owner is None else "killed"


def _stage(history: Sequence[Recorded]) -> str | None:
    """The newest stage of the launch that runs, or of `preprocess` on its own."""
    for recorded in reversed(history):
        match recorded.event:
            case events.StageStarted(stage=stage):
                return stage
            case events.RunStarted() | events.RunFinished():
                return None
    return None


def _progress(history: Sequence[Recorded]) -> dict[str, float | None]:
    """How far the training is, with the newest figure of each kind."""
    found: dict[str, float | None] = {
        "epoch": 0,
        "epochs": None,
        "step": 0,
        "steps": None,
        "loss": None,
        "fpr95": None,
        "accuracy": None,
    }
    for recorded in history:
        new = _figures(recorded.event)
        found |= {name: value for name, value in new.items() if value is not None}
    return found


def _figures(event: Event) -> dict[str, float | None]:
    """What an event says about the training; the `steps` of an epoch's event are of that epoch alone."""
    match event:
        case events.Epoch():
            return {
                "epoch": event.epoch,
                "epochs": event.epochs,
                "step": event.step,
                "steps": event.total_steps,
                "loss": event.loss,
                "fpr95": event.fpr95,
                "accuracy": event.accuracy,
            }
        case events.Progress(step=step, steps=steps):
            return {"step": step, "steps": steps}
        case events.FirstStep(step=step) | events.Resumed(step=step):
            return {"step": step}
    return {}


def _count(history: Sequence[Recorded], kind: type[Event]) -> int:
    return sum(isinstance(recorded.event, kind) for recorded in history)
