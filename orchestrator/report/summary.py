"""summary.json: what a run came to, made from its events, its manifest and its last checkpoint."""

import json
from importlib.metadata import version
from typing import Any

from orchestrator.events import EventLog
from orchestrator.run_directory import RunDirectory
from orchestrator.spec import JobSpec

_PACKAGES = ("sdnet-orchestrator", "mindspore", "ray", "numpy", "opencv-python-headless", "pyarrow")


def read_summary(run: RunDirectory) -> dict[str, Any] | None:
    """The summary of a run that has ended, or None."""
    if not run.summary.exists():
        return None
    summary: dict[str, Any] = json.loads(run.summary.read_text(encoding="utf-8"))
    return summary


def build_summary(spec: JobSpec, run: RunDirectory, events: EventLog, status: str) -> dict[str, Any]:
    """Everything of `summary.json`; figures that the run never reached are null."""
    history = events.read()
    last_epoch = _last(history, "epoch")
    rated = [event for event in history if event["event"] == "epoch" and "fpr95" in event]
    rates = rated[-1] if rated else {}
    saved = _last(history, "checkpoint_saved")
    patches = _manifest(run).get("patches", {})
    return {
        "name": spec.name,
        "status": status,
        "fpr95": rates.get("fpr95"),
        "accuracy": rates.get("accuracy"),
        "loss": last_epoch.get("loss"),
        "epochs": last_epoch.get("epoch", 0),
        "steps": last_epoch.get("step", 0),
        "world_size": _last(history, "group_started").get("world_size"),
        "restarts": sum(event["event"] == "group_restarting" for event in history),
        "lost_steps": lost_steps(history),
        "patches": {"train": patches.get("train"), "test": patches.get("test")},
        "skipped_images": len(_manifest(run).get("skipped", [])),
        "checkpoint": saved.get("checkpoint"),
        "seconds": {stage: seconds_in(history, stage) for stage in ("preprocess", "train", "evaluate")},
        "versions": {package: version(package) for package in _PACKAGES},
    }


def lost_steps(history: list[dict[str, Any]]) -> int:
    """Global steps that were done, lost to a failure, and done again."""
    lost, reached = 0, 0
    for event in history:
        if event["event"] in ("progress", "epoch", "failure_detected"):
            reached = max(reached, event["step"])
        elif event["event"] == "resumed":
            lost += max(reached - event["step"], 0)
            reached = event["step"]
    return lost


def seconds_in(history: list[dict[str, Any]], stage: str) -> float | None:
    """Wall seconds that a stage took, over all launches; None when it never ran.

    Evaluation runs inside the training group; its seconds are those of the epochs' evaluations.
    """
    if stage == "evaluate":
        spent = [event["evaluate_s"] for event in history if "evaluate_s" in event]
        return round(sum(spent), 3) if spent else None
    total, began = None, None
    for event in history:
        if event["event"] == "stage_started" and event["stage"] == stage:
            began = event["t"]
        ends = event["event"] == "run_finished" or (
            event["event"] == "stage_finished" and event["stage"] == stage
        )
        if began is not None and ends:
            # Measured by the stage where it ended: the clock may have been set since it began.
            spent = event.get("seconds", max(event["t"] - began, 0.0))
            total = round((total or 0.0) + spent, 3)
            began = None
    return total


def _last(history: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next((event for event in reversed(history) if event["event"] == name), {})


def _manifest(run: RunDirectory) -> dict[str, Any]:
    if not run.manifest.exists():
        return {}
    manifest: dict[str, Any] = json.loads(run.manifest.read_text(encoding="utf-8"))
    return manifest
