"""summary.json: what a run came to, made from its events, its manifest and its last checkpoint."""

import logging
from importlib.metadata import version
from typing import Any

from orchestrator.events import EventLog
from orchestrator.inputs import source_of
from orchestrator.run_directory import RunDirectory
from orchestrator.spec import JobSpec
from sdnet.errors import InputError
from sdnet.files import read_json

logger = logging.getLogger(__name__)

_PACKAGES = ("sdnet-orchestrator", "mindspore", "ray", "numpy", "opencv-python-headless", "pyarrow")


def read_summary(run: RunDirectory) -> dict[str, Any] | None:
    """The summary of a run that has ended, or None.

    A file that is no summary is reported and counts as none: a launch writes it again. Raises
    InputError for one that cannot be read.
    """
    try:
        summary = read_json(run.summary)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(
            f"{run.summary} cannot be read ({error.strerror}); make it a file that you may read, "
            "or move it away"
        ) from None
    except ValueError:
        summary = None
    if isinstance(summary, dict) and all(isinstance(summary.get(key), str) for key in ("name", "status")):
        return summary
    logger.warning("%s is not a summary; it counts as missing and is written again", run.summary)
    return None


def build_summary(spec: JobSpec, run: RunDirectory, events: EventLog, status: str) -> dict[str, Any]:
    """Everything of `summary.json`; figures that the run never reached are null."""
    history = events.read()
    last_epoch = _last(history, "epoch")
    rated = [event for event in history if event["event"] == "epoch" and "fpr95" in event]
    rates = rated[-1] if rated else {}
    saved = _last(history, "checkpoint_saved")
    manifest = _manifest(run)
    patches = manifest["patches"]
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
        "data_source": source_of(spec.data),
        "patches": {"train": patches.get("train"), "test": patches.get("test")},
        "skipped_images": len(manifest["skipped"]),
        "checkpoint": saved.get("checkpoint"),
        **_origin(run, saved.get("checkpoint")),
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
    """`patches` and `skipped` of the manifest; empty where there is none, or none that can be read."""
    try:
        manifest = read_json(run.manifest)
    except (OSError, ValueError):
        manifest = None
    found = manifest if isinstance(manifest, dict) else {}
    patches, skipped = found.get("patches"), found.get("skipped")
    return {
        "patches": patches if isinstance(patches, dict) else {},
        "skipped": skipped if isinstance(skipped, list) else [],
    }


def _origin(run: RunDirectory, checkpoint: str | None) -> dict[str, str | None]:
    """Which bytes the result is: of the last checkpoint's model.ckpt, and of its weights."""
    if checkpoint is not None:
        # Imported late: it takes MindSpore with it, which a run that never saved does not need.
        from sdnet.checkpoint import CorruptCheckpoint, read_origin

        try:
            return read_origin(run.checkpoints / checkpoint)
        except CorruptCheckpoint as error:
            logger.warning("%s", error)
    return {"checkpoint_sha256": None, "weights_sha256": None}
