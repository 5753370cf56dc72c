"""Whether the data of a job are those that its run was trained with."""

import logging
from pathlib import Path
from typing import Any

from orchestrator.engine.checkpoints import newest_fields
from orchestrator.job.data.files import data_files
from orchestrator.job.data.inputs import images_folder, prepared_files, refuse_passing, source_of, work_of
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import DataSpec, JobSpec
from sdnet.data.checksums import checksums_of, data_mismatch
from sdnet.errors import InputError
from sdnet.paths import full_path
from sdnet.preparation.work import images_changed, is_recorded

logger = logging.getLogger(__name__)

# A run may be resumed with other values of these keys. If such a change alters the patches, it also alters the
# checksums of the data, and those are compared with the ones in the checkpoints.
_NO_IDENTITY = ("max_bad_images", "layout", "max_pixels")


def refuse_other_data(run: RunDirectory, train: Path, test: Path) -> None:
    """Raise InputError when the run's checkpoints were trained with other files than these.

    Checkpoints without checksums of their data are accepted.
    """
    recorded = _recorded_checksums(run)
    if not recorded:
        return
    try:
        mismatch = data_mismatch(recorded, checksums_of(train, test))
    except OSError as error:
        raise _unreadable(error, train.parent) from None
    if mismatch:
        raise InputError(
            f"the checkpoints of {run.root} were trained with another {mismatch}; put the data back, "
            "give the job another `name`, or launch with --restart to begin again"
        )


def refuse_changed_since_finished(spec: JobSpec, run: RunDirectory) -> None:
    """Raise InputError if a finished run's data have changed since.

    Deleted data are no error: the result remains valid. Images that cannot be compared give a warning.
    """
    files = [data_files(run)]
    if spec.data.prepared is not None:
        files.append(prepared_files(spec.data.prepared))
    for train, test in files:
        if train.is_file() and test.is_file():
            refuse_other_data(run, train, test)
    if spec.data.images is None:
        return
    if not any(path.is_file() for path in images_folder(spec.data.images).rglob("*")):
        return
    if _refuse_changed_images(spec, run, "was finished") is None:
        logger.warning(
            "images %s were not compared with those that %s was trained with: its shards are gone or of an "
            "older version, or pairs that it does not use were added or removed; if the images changed, launch with "
            "--restart",
            spec.data.images,
            run.root,
        )


def refuse_changed_since_checkpoint(spec: JobSpec, run: RunDirectory) -> None:
    """Raise InputError if the images of a run with checkpoints have changed: before its data are replaced.

    What cannot be compared is accepted here; `refuse_other_data` compares the patches that are made of it.
    """
    if spec.data.images is not None and _recorded_checksums(run):
        _refuse_changed_images(spec, run, "saved its checkpoints")


def _refuse_changed_images(spec: JobSpec, run: RunDirectory, what: str) -> bool | None:
    """Raise InputError if the images give other patches now. Returns False, or None if that is not known."""
    assert spec.data.images is not None
    images = images_folder(spec.data.images)
    try:
        changed = images_changed(work_of(spec.data, images, run))
    except OSError as error:
        raise _unreadable(error, images) from None
    if changed:
        raise InputError(
            f"images {spec.data.images} changed after {run.root} {what}; put them back, "
            "give the job another `name`, or launch with --restart to begin again"
        )
    return changed


def have_only_moved(data: DataSpec, run: RunDirectory) -> bool:
    """Whether these are the run's data at another path.

    No image is read if all kept their sizes and modification times.
    False for data that cannot be used. Raises StorageUnavailable for a failure that may pass.
    """
    try:
        if data.prepared is not None:
            recorded, files = _recorded_checksums(run), prepared_files(data.prepared)
            there = bool(recorded) and all(path.is_file() for path in files)
            return there and not data_mismatch(recorded, checksums_of(*files))
        if data.images is None:
            return False
        work = work_of(data, images_folder(data.images), run)
        return is_recorded(work) or images_changed(work) is False
    except InputError:
        return False
    except OSError as error:
        refuse_passing(error, source_of(data))
        return False


def _unreadable(error: OSError, folder: Path) -> InputError:
    """The InputError for an unreadable file. Raises StorageUnavailable for an error that may pass."""
    refuse_passing(error, str(folder))
    return InputError(
        f"{error.filename or folder} cannot be compared with what the run was trained with "
        f"({error.strerror or error}); make it readable, and launch again"
    )


def data_identity(data: dict[str, Any]) -> dict[str, Any]:
    """The keys of a job's `data` that may decide its result. Jobs written by older versions lack some keys.

    The same folder has one identity, however its path is written.
    """
    split = {"scene_pattern": None, **data["split"]}
    folders = {key: _real(data[key]) for key in ("images", "prepared") if isinstance(data.get(key), str)}
    whole = {**data, **folders, "split": split}
    return {key: value for key, value in whole.items() if key not in _NO_IDENTITY}


def _real(path: str) -> str:
    try:
        return str(full_path(path))
    except InputError:
        return path  # of an earlier launch, and cannot be followed any more


def _recorded_checksums(run: RunDirectory) -> dict[str, str]:
    """Checksums of the data in the newest readable checkpoint; all checkpoints of a run have the same."""
    recorded = newest_fields(run.storage).get("data", {})
    return {str(file): str(checksum) for file, checksum in recorded.items()}
