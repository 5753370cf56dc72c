"""`status`: where a run stands, read from its events alone, so that it works while others write."""

import time
from typing import Any

from orchestrator.events import EventLog
from orchestrator.processes import is_alive
from orchestrator.run_directory import RunDirectory

Event = dict[str, Any]


def read_status(run: RunDirectory, now: float | None = None) -> dict[str, Any]:
    """State, stage, epoch, step, rates and failures of a running or finished job.

    state: `not started`, `running`, how the last launch ended (`succeeded`, `failed`, `stopped`), or
    `killed` when its process is gone and could not say how it ended. Only the host of the launch can
    see that; elsewhere the state stays `running`, and `last_event_s_ago` shows for how long nothing
    was written. epochs, steps: of the whole recipe, None while they are unknown. Never negative.
    """
    history = EventLog(run.events).read()
    state, stage = "not started", None
    found: dict[str, Any] = {
        "epoch": 0,
        "epochs": None,
        "step": 0,
        "steps": None,
        "loss": None,
        "fpr95": None,
        "accuracy": None,
    }
    counts = {"launches": 0, "failures": 0, "restarts": 0, "checkpoints": 0}
    for event in history:
        match event["event"]:
            case "run_started":
                state, stage = _state_of_launch(event), None
                counts["launches"] += 1
            case "run_finished":
                state, stage = event["status"], None
            case "stage_started":
                stage = event["stage"]
            case "failure_detected":
                counts["failures"] += 1
            case "group_restarting":
                counts["restarts"] += 1
            case "checkpoint_saved":
                counts["checkpoints"] += 1
        found |= _progress(event)
    silent_s = round(max((now or time.time()) - history[-1]["t"], 0.0), 1) if history else None
    return {
        "name": run.root.name,
        "state": state,
        "stage": stage,
        **found,
        **counts,
        "last_event_s_ago": silent_s,
    }


def _state_of_launch(started: Event) -> str:
    return "killed" if is_alive(started.get("process", "")) is False else "running"


def _progress(event: Event) -> Event:
    """What an event says of the training; `steps` of an epoch's event are of that epoch alone."""
    match event["event"]:
        case "epoch":
            names = ("epoch", "epochs", "step", "loss", "fpr95", "accuracy")
            total = {"steps": event["total_steps"]} if "total_steps" in event else {}
            return {name: event[name] for name in names if name in event} | total
        case "progress":
            return {name: event[name] for name in ("step", "steps") if name in event}
        case "first_step" | "resumed":
            return {"step": event["step"]} if "step" in event else {}
    return {}
