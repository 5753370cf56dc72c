"""`status`: where a run stands, read from its events alone, so that it works while others write."""

import time
from typing import Any

from orchestrator.events import EventLog
from orchestrator.run_directory import RunDirectory


def read_status(run: RunDirectory, now: float | None = None) -> dict[str, Any]:
    """State, stage, epoch, step, rates and failures of a running or finished job.

    state: `running`, or how the last launch ended (`succeeded`, `failed`, `stopped`). A launch
    that was killed could not say so; `last_event_s_ago` tells how long nothing was heard.
    """
    history = EventLog(run.events).read()
    state, stage = "not started", None
    found: dict[str, Any] = {
        "epoch": 0,
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
                state = "running"
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
        if event["event"] in ("epoch", "progress", "first_step"):
            found |= {key: event[key] for key in found if key in event}
    silent_s = round((now or time.time()) - history[-1]["t"], 1) if history else None
    return {
        "name": run.root.name,
        "state": state,
        "stage": stage,
        **found,
        **counts,
        "last_event_s_ago": silent_s,
    }
