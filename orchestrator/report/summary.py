"""summary.json: the result of a run, made from its events, its manifest and its last checkpoint."""

import logging
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any, TypeVar

from orchestrator.engine.checkpoints import read_fields
from orchestrator.errors import CorruptData
from orchestrator.job.data.inputs import source_of
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import JobSpec
from orchestrator.storage import ObjectMissing, StorageMisused
from orchestrator.telemetry import events
from orchestrator.telemetry.event import Event, Recorded
from sdnet.errors import InputError
from sdnet.files import parsed_json

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=Event)

_WEIGHTS = "model.ckpt"
_PACKAGES = ("sdnet-orchestrator", "mindspore", "ray", "numpy", "opencv-python-headless", "pyarrow")


def read_summary(run: RunDirectory) -> dict[str, Any] | None:
    """The summary of a run that has ended, or None.

    A file that is no summary is reported and counts as none: a launch writes it again. Raises
    InputError for one that cannot be read, and StorageUnavailable.
    """
    try:
        summary = parsed_json(run.storage.get(run.summary.name))
    except ObjectMissing:
        return None
    except StorageMisused as error:
        raise InputError(
            f"{run.summary} cannot be read ({error.detail}); make it a file that you may read, "
            "or move it away"
        ) from None
    except ValueError:
        summary = None
    if isinstance(summary, dict) and all(isinstance(summary.get(key), str) for key in ("name", "status")):
        return summary
    logger.warning("%s is not a summary; it counts as missing and is written again", run.summary)
    return None


def build_summary(
    spec: JobSpec, run: RunDirectory, history: Sequence[Recorded], status: str
) -> dict[str, object]:
    """The content of `summary.json`; figures that the run never reached are null. Raises StorageUnavailable."""
    epochs = [recorded.event for recorded in history if isinstance(recorded.event, events.Epoch)]
    last_epoch = epochs[-1] if epochs else None
    rated = [epoch for epoch in epochs if epoch.fpr95 is not None]
    saved, group = _last(history, events.CheckpointSaved), _last(history, events.GroupStarted)
    checkpoint = saved.checkpoint if saved else None
    manifest = _manifest(run)
    patches = manifest["patches"]
    return {
        "name": spec.name,
        "status": status,
        "fpr95": rated[-1].fpr95 if rated else None,
        "accuracy": rated[-1].accuracy if rated else None,
        "loss": last_epoch.loss if last_epoch else None,
        "epochs": last_epoch.epoch if last_epoch else 0,
        "steps": last_epoch.step if last_epoch else 0,
        "world_size": group.world_size if group else None,
        "restarts": sum(isinstance(recorded.event, events.GroupRestarting) for recorded in history),
        "lost_steps": lost_steps(history),
        "data_source": source_of(spec.data),
        "patches": {"train": patches.get("train"), "test": patches.get("test")},
        "skipped_images": len(manifest["skipped"]),
        "checkpoint": checkpoint,
        **_origin(run, checkpoint),
        "seconds": {stage: seconds_in(history, stage) for stage in ("preprocess", "train", "evaluate")},
        "versions": {package: version(package) for package in _PACKAGES},
    }


def lost_steps(history: Sequence[Recorded]) -> int:
    """Global steps that were done, lost to a failure, and done again."""
    lost, reached = 0, 0
    for recorded in history:
        match recorded.event:
            case events.Progress(step=step) | events.Epoch(step=step) | events.FailureDetected(step=step):
                reached = max(reached, step)
            case events.Resumed(step=step):
                lost += max(reached - step, 0)
                reached = step
    return lost


def seconds_in(history: Sequence[Recorded], stage: str) -> float | None:
    """Wall seconds that a stage took, over all launches; None when it never ran.

    Evaluation runs inside the training group; its seconds are those of the epochs' evaluations.
    """
    if stage == "evaluate":
        epochs = (recorded.event for recorded in history if isinstance(recorded.event, events.Epoch))
        spent = [epoch.evaluate_s for epoch in epochs if epoch.evaluate_s is not None]
    else:
        spent = list(_seconds_of_each(history, stage))
    return round(sum(spent), 3) if spent else None


def _seconds_of_each(history: Sequence[Recorded], stage: str) -> Iterator[float]:
    """Wall seconds of each time that a launch was in the stage."""
    began: float | None = None
    for recorded in history:
        match recorded.event:
            case events.StageStarted(stage=name) if name == stage:
                began = recorded.t
            case events.StageFinished(stage=name, seconds=seconds) if name == stage and began is not None:
                # Measured by the stage, if it could: the clock may have been set since it began.
                yield max(recorded.t - began, 0.0) if seconds is None else seconds
                began = None
            case events.RunFinished() if began is not None:
                yield max(recorded.t - began, 0.0)
                began = None


def _last(history: Sequence[Recorded], kind: type[E]) -> E | None:
    """The newest event of a kind."""
    return next((r.event for r in reversed(history) if isinstance(r.event, kind)), None)


def _manifest(run: RunDirectory) -> dict[str, Any]:
    """`patches` and `skipped` of the manifest; empty where there is none, or none that can be read."""
    try:
        manifest = parsed_json(run.storage.get(f"{run.data.name}/{run.manifest.name}"))
    except (ObjectMissing, StorageMisused, ValueError):
        manifest = None
    found = manifest if isinstance(manifest, dict) else {}
    patches, skipped = found.get("patches"), found.get("skipped")
    return {
        "patches": patches if isinstance(patches, dict) else {},
        "skipped": skipped if isinstance(skipped, list) else [],
    }


def _origin(run: RunDirectory, checkpoint: str | None) -> dict[str, str | None]:
    """The identity of the result: checksums of the last checkpoint's model.ckpt and of its weights."""
    fields: dict[str, Any] = {"files": {}}
    if checkpoint is not None:
        try:
            fields = read_fields(run.storage, checkpoint)
        except (CorruptData, ObjectMissing) as error:
            logger.warning("%s", error)
    return {
        "checkpoint_sha256": fields["files"].get(_WEIGHTS, {}).get("sha256"),
        "weights_sha256": fields.get("weights_sha256"),
    }
