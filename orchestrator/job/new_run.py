"""Refuses a new run that nobody meant, and leaves no folder of it: `status` would report it as a run that failed."""

import json
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.errors import OrchestratorError
from orchestrator.job.data.inputs import check_inputs
from orchestrator.job.mounted import refuse_unmounted
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import JobSpec, load_spec
from orchestrator.ray_cluster.session import check_session
from orchestrator.storage import lease
from orchestrator.telemetry import record, state
from sdnet.errors import InputError
from sdnet.files import is_run

_RECORD = re.compile(
    rf"{lease.FOLDER}\d{{6,}}(\.heartbeat)?|{state.FOLDER}\d{{6,}}\.json|{record.FOLDER}\d{{6,}}/.+\.jsonl"
)
# What neither a shell nor YAML reads as something else.
_PLAIN_PATH = re.compile(r"/[\w./-]*", re.ASCII)


def read_job(path: Path, overrides: tuple[str, ...] = ()) -> JobSpec:
    """`load_spec`; also raises InputError for the job.yaml of a run that is in another place than the file says.

    Somebody moved, copied or renamed that run, or its storage is relative. A launch would begin a new run there.
    """
    spec = load_spec(path, overrides)
    folder = path.resolve().parent
    root = RunDirectory.of(spec.storage, spec.name).root
    given = {override.partition("=")[0] for override in overrides}
    # The user asks for another run. With the storage of this folder, the user follows the remedy below.
    is_another = "name" in given or ("storage" in given and root.parent != folder.parent)
    is_of_run = path.resolve() == RunDirectory(folder).job and is_run(folder)
    if is_of_run and not is_another and root.resolve() != folder:
        renamed = f"rename that folder to {spec.name}, and " if folder.name != spec.name else ""
        raise InputError(
            f"{path} describes the run {root}, and is in {folder}; to go on with the run there, {renamed}"
            f"add --set {_setting('storage', str(folder.parent))}"
        )
    return spec


def _setting(key: str, value: str) -> str:
    """`key=value` for a shell; the value is in quotes if YAML could read it as something else."""
    plain = _PLAIN_PATH.fullmatch(value)
    return shlex.quote(f"{key}={value if plain else json.dumps(value, ensure_ascii=False)}")


def refuse_misplaced(spec: JobSpec, run: RunDirectory) -> None:
    """Raise InputError for a run in a mount point without its file system, and for a new run inside another one.

    An earlier run may be on that file system. A new run is inside another one if its relative storage was typed there.
    """
    refuse_unmounted("storage", spec.storage)
    outer = next((folder for folder in run.root.parents if is_run(folder)), None)
    if outer is not None and not os.path.lexists(run.root):
        raise InputError(
            f"storage is {run.root.parent}, inside the run {outer}; give a folder outside, such as {outer.parent}"
        )


def check_new_run(spec: JobSpec) -> None:
    """Check the inputs and the cluster's address if the job has no run directory yet.

    Raises as `check_inputs` and `refuse_misplaced`.
    """
    run = RunDirectory.of(spec.storage, spec.name)
    refuse_misplaced(spec, run)
    if not os.path.lexists(run.root):
        check_inputs(spec)
        check_session(spec.cluster)


@contextmanager
def no_folder_if_refused(run: RunDirectory) -> Iterator[None]:
    """If the block raises InputError, remove the run directory that it made, unless work is in it.

    Also removes the folders above it that were not there before, if they are empty. Some refusals come only after the
    run has an owner. Example: a cluster with too few CPUs.
    """
    is_new = not os.path.lexists(run.root)
    made = [folder for folder in run.root.parents if not os.path.lexists(folder)]
    try:
        yield
    except InputError:
        with suppress(OSError, OrchestratorError):  # then the folder stays; the refusal is what matters
            if is_new and run.root.exists():
                _remove(run)
            for folder in made:  # the innermost comes first
                folder.rmdir()
        raise


def _remove(run: RunDirectory) -> None:
    """Remove the folder if it has only this launch's own records. Raises OSError and OrchestratorError.

    Another launch may come at any time. It is refused while this process owns the run, so the leases go last. No
    folder is removed with what is in it: from the lease of a later launch on, the run is that launch's.
    """
    if not _has_only_records(run):
        return
    taken = lease.take(run.storage, lease.Owner.this_process())
    try:
        _remove_owned(run)
    finally:
        if run.root.exists():
            taken.renew(1, lease.Clock().now(), ended=True)


def _remove_owned(run: RunDirectory) -> None:
    folders, files = _content(run)
    if not _has_only_records(run):
        return
    leases = [path for path in files if path.parent.name == lease.FOLDER.rstrip("/")]
    for path in [*(path for path in files if path not in leases), *leases]:
        path.unlink()
    for folder in [*folders, run.root]:
        folder.rmdir()


def _content(run: RunDirectory) -> tuple[list[Path], list[Path]]:
    """(folders, files) of the run; what is in a folder comes before the folder."""
    paths = sorted(run.root.rglob("*"), reverse=True)
    folders = [path for path in paths if path.is_dir() and not path.is_symlink()]
    return folders, [path for path in paths if path not in folders]


def _has_only_records(run: RunDirectory) -> bool:
    return all(_is_record(run, path) for path in _content(run)[1]) and _is_only_owner(run)


def _is_record(run: RunDirectory, path: Path) -> bool:
    """Whether a launch writes this file before and after its work, and not as a part of it."""
    if path in (run.job, run.events, run.summary, run.report):
        return True
    return _RECORD.fullmatch(path.relative_to(run.root).as_posix()) is not None


def _is_only_owner(run: RunDirectory) -> bool:
    """Whether this process has taken all leases of the run."""
    numbers = range(1, lease.newest_lease(run.storage) + 1)
    owners = [lease.read_owner(run.storage, number) for number in numbers]
    this = lease.Owner.this_process()
    return all(owner is not None and (owner.host, owner.mark) == (this.host, this.mark) for owner in owners)
