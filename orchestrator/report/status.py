"""`status`: the state of a run, read from its lease and its events, so that it works while a launch writes."""

import socket
import time
from collections.abc import Sequence

from orchestrator.job.run_directory import RunDirectory
from orchestrator.process_identity import start_ticks
from orchestrator.storage.lease import Clock, LeaseTimes, Life, life_of, newest_lease, owner_of
from orchestrator.telemetry import events
from orchestrator.telemetry.event import Event, Recorded
from orchestrator.telemetry.record import EventReader

# How long the heartbeat of an owner on another host is watched.
_WATCH_S = 6.0


def read_status(run: RunDirectory, now: float | None = None, clock: Clock | None = None) -> dict[str, object]:
    """State, owner, stage, epoch, step, rates and failures of a running or finished job.

    state: `not started`, `running`, how the last launch ended (`succeeded`, `failed`, `stopped`), `killed` when its
    process ended without a record of its end, or `silent` when its heartbeat did not change for some seconds: it may
    be killed, stopped or cut off from storage. Only the launch's own host can see that it was killed.
    owner: of the newest launch, in words. epochs, steps: of the complete recipe, None while unknown.
    last_event_s_ago: never negative, even if the clocks of the hosts differ. Raises StorageError.
    """
    # In this order: a launch that ends now must not look killed. It records its end before it gives the lease back,
    # so the events that are read last show the end.
    lease = newest_lease(run.storage)
    life = life_of(run.storage, lease, LeaseTimes(), clock, _WATCH_S) if lease else None
    history = EventReader(run.storage).read()
    silent_s = round(max((now or time.time()) - history[-1].t, 0.0), 1) if history else None
    return {
        "name": run.root.name,
        "state": _state(life, history),
        "owner": owner_of(run.storage, lease) if lease else None,
        "stage": _stage(history),
        **_progress(history),
        "launches": _count(history, events.RunStarted),
        "failures": _count(history, events.FailureDetected),
        "restarts": _count(history, events.GroupRestarting),
        "checkpoints": _count(history, events.CheckpointSaved),
        "last_event_s_ago": silent_s,
    }


# The state of a launch that recorded no end, from the state of its lease. A launch that returned the lease could
# not write its end.
_WITHOUT_END = {Life.SILENT: "silent", Life.KILLED: "killed", Life.ENDED: "failed"}


def _state(life: Life | None, history: Sequence[Recorded]) -> str:
    """The state of a run. life: of its newest owner, None without a lease."""
    launches = [r.event for r in history if isinstance(r.event, events.RunStarted | events.RunFinished)]
    # By the lease, because the clocks of two launches' hosts may differ; then by time, the newest first.
    last = max(reversed(launches), key=lambda event: event.lease, default=None)
    if life is Life.ALIVE:
        return "running"
    if isinstance(last, events.RunFinished):
        return last.status
    if life is None and last is not None:
        # A launch of a version without leases.
        here = last.host == socket.gethostname()
        return "killed" if here and start_ticks(last.pid) is None else "running"
    if life is None or (last is None and life is Life.ENDED):
        return "not started"
    return _WITHOUT_END[life]


def _stage(history: Sequence[Recorded]) -> str | None:
    """The newest stage of the running launch, or of a `preprocess` command; None after a launch has ended."""
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
