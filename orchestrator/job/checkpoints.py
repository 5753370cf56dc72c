"""Whether the run has finished, which checkpoint the job resumes from, and when to refuse.

`launch` and `plan` decide with these functions.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import yaml

from orchestrator.engine.checkpoints import (
    CheckpointsLost,
    found_objects,
    newest_fields,
    newest_valid,
    refuse_lost,
)
from orchestrator.engine.state_format import ARRAYS
from orchestrator.job.data.inputs import keys_without_effect, prepared_files
from orchestrator.job.data.same_data import (
    data_identity,
    have_only_moved,
    refuse_changed_since_checkpoint,
    refuse_changed_since_finished,
    refuse_other_data,
)
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import JobSpec
from orchestrator.report.summary import read_summary
from orchestrator.storage import ObjectMissing, StorageMisused
from orchestrator.telemetry.event import Event
from orchestrator.telemetry.events import CheckpointCorrupt
from orchestrator.telemetry.state import read_state
from sdnet.config import changed_setting
from sdnet.errors import InputError, shown

logger = logging.getLogger(__name__)

Record = Callable[[Event], None]

# What decides the bytes of the result.
_IDENTITY = ("data", "train", "evaluate")
_MOST_NAMED = 3
_REMEDY = "give the job another `name`, or launch with --restart to begin again"


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest valid checkpoint of a run, and the global steps done in it."""

    name: str
    step: int


def holds_checkpoints(run: RunDirectory) -> bool:
    """Whether training has left a checkpoint, valid or corrupt. A listing may lag, so the state is asked, too."""
    return bool(found_objects(run.storage)) or read_state(run.storage).saved is not None


def finished_summary(spec: JobSpec, run: RunDirectory, record: Record | None) -> dict[str, Any] | None:
    """The summary of a run that has finished, so that nothing is left to do; None for any other.

    record: see `newest_checkpoint`. Raises InputError when all checkpoints that were saved are lost, or when the data
    of a finished run have changed, and StorageError.
    """
    summary = read_summary(run)
    if summary is None or summary["status"] != "succeeded":
        newest_checkpoint(run, record)
        return None
    last = summary.get("checkpoint")
    newest = newest_checkpoint(run, record, last)
    if last == (newest.name if newest else None):
        refuse_changed_since_finished(spec, run)
        return summary
    if last is not None and newest is not None:
        logger.warning(
            "the run has finished, but its last checkpoint %s is lost; it trains again from %s",
            last,
            newest.name,
        )
    return None


def refuse_changed_inputs(spec: JobSpec, run: RunDirectory) -> None:
    """Raise InputError if a run that is not finished has checkpoints of other data than the job's."""
    if spec.data.prepared is not None:
        refuse_other_data(run, *prepared_files(spec.data.prepared))
    refuse_changed_since_checkpoint(spec, run)


def newest_checkpoint(
    run: RunDirectory, record: Record | None, finished_with: str | None = None
) -> Newest | None:
    """The newest valid checkpoint; None for a run that has saved none. Corrupt ones are marked and recorded.

    record: None only looks, and writes no marker. finished_with: name of the last checkpoint of a run that has
    finished. Raises InputError when the run saved checkpoints and none is valid.
    """
    saved = finished_with or read_state(run.storage).saved
    name, encoded, corrupt = newest_valid(
        run.storage, known=saved, mark=record is not None, finished=finished_with is not None
    )
    names = [error.name.removeprefix("checkpoint ") for error in corrupt]
    if record is not None:
        for corrupt_name, error in zip(names, corrupt, strict=True):
            record(CheckpointCorrupt(checkpoint=corrupt_name, detail=error.detail))
    if name is not None and encoded is not None:
        return Newest(name, encoded.step)
    try:
        refuse_lost(run.storage, saved, names)
    except CheckpointsLost as error:
        finished = "the run has finished, but " if finished_with else ""
        remedy = "put one back, or launch with --restart to train from step 1"
        raise InputError(f"{finished}{error.problem}; {remedy}") from None
    return None


def refuse_another_job(spec: JobSpec, run: RunDirectory) -> None:
    """Refuse if the directory contains checkpoints of other data, another recipe or other ranks.

    Before there is one a mistake in the job can be corrected: shards are made again where they must be.
    """
    if not holds_checkpoints(run):
        return
    before = _read_job(run)
    if before is None:
        _refuse_other_function(run)
    else:
        now = spec.values()
        changed = list(_changes(before, now))
        if changed and _is_moved(spec, run, before, now):
            changed = []
        more = f" and {len(changed) - _MOST_NAMED} more" if len(changed) > _MOST_NAMED else ""
        if changed:
            raise InputError(
                f"{run.root} contains a job with {', '.join(changed[:_MOST_NAMED])}{more}; {_REMEDY}"
            )
    _refuse_other_recipe(spec, run)


def _refuse_other_function(run: RunDirectory) -> None:
    """Refuse checkpoints in the engine's own format, NumPy archives: those of SDNet have `model.ckpt` instead."""
    if any(ARRAYS in files for files in found_objects(run.storage).values()):
        raise InputError(f"the checkpoints of {run.root} are of another training function; {_REMEDY}")


def _refuse_other_recipe(spec: JobSpec, run: RunDirectory) -> None:
    """Ask the newest checkpoint: job.yaml may be gone, or the checkpoints may be another run's."""
    fields = newest_fields(run.storage)
    recipe = fields.get("recipe")
    if not isinstance(recipe, dict) or not recipe:
        return
    ranks = spec.cluster.max_workers
    before = {**recipe, "ranks": fields.get("slices", ranks)}
    changed = changed_setting(before, {**asdict(spec.train), "ranks": ranks})
    if changed:
        raise InputError(f"the checkpoints of {run.root} were trained with {changed}; {_REMEDY}")


def _read_job(run: RunDirectory) -> dict[str, Any] | None:
    """job.yaml as the last launch wrote it, or None.

    Raises InputError when it cannot say what the run was, and StorageUnavailable.
    """
    try:
        job = yaml.safe_load(run.storage.get(run.job.name))
        _identity(job)
        if isinstance(job["data"], dict):
            return dict(job)
        problem = "it is not a job"
    except ObjectMissing:
        return None
    except StorageMisused as error:
        problem = error.detail
    except (yaml.YAMLError, LookupError, TypeError, ValueError, RecursionError):
        problem = "it is not a job"
    raise InputError(
        f"{run.job} cannot be read ({problem}), so the checkpoints there may belong to another job; "
        "put it back, or launch with --restart to begin again"
    )


def _identity(job: dict[str, Any]) -> dict[str, Any]:
    """What of a job decides its result."""
    workers, threads = job["cluster"]["workers"], job["cluster"]["threads"]
    ranks = workers if isinstance(workers, int) else workers[1]
    sections = {**{key: job.get(key) for key in _IDENTITY}, "data": data_identity(job["data"])}
    return {**sections, "cluster": {"workers": ranks, "threads": threads}}


def _changes(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Each key that decides the result and whose value differs.

    A key without effect in either job is left out. If the jobs use different sources, the sources are named.
    """
    was, is_now = _identity(before), _identity(now)
    for job in (before, now):
        for key in keys_without_effect(job["data"]):
            for identity in (was, is_now):
                identity["data"].pop(key, None)
    yield from _differences(was, is_now)


def _is_moved(spec: JobSpec, run: RunDirectory, before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether the jobs differ in nothing but the path of the same data."""
    source = "images" if spec.data.prepared is None else "prepared"
    path = now["data"].get(source)
    if path is None or before["data"].get(source) is None:
        return False
    moved = {**before, "data": {**before["data"], source: path}}
    return not any(_changes(moved, now)) and have_only_moved(spec.data, run)


def _differences(before: object, now: object, name: str = "") -> Iterator[str]:
    """Each key whose value differs, as `train.lr 0.004, not 0.001`."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
    elif before != now:
        values = ["nothing" if value is None else shown(value) for value in (before, now)]
        yield f"{name} {values[0]}, not {values[1]}"
