"""`launch`: one job from cluster.yaml to summary.json, resuming whatever is already done."""

import contextlib
import functools
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.errors import OrchestratorError
from orchestrator.job.checkpoints import finished_summary, refuse_another_job, refuse_changed_inputs
from orchestrator.job.data.copies import data_errors
from orchestrator.job.data.files import data_files
from orchestrator.job.data.inputs import check_inputs, notes_of
from orchestrator.job.data.same_data import refuse_other_data
from orchestrator.job.demo import demo_spec
from orchestrator.job.new_run import check_new_run
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import JobSpec
from orchestrator.job.spec.yaml_text import yaml_text
from orchestrator.ray_cluster.session import ray_session
from orchestrator.ray_cluster.signal_handlers import keeping_signal_handlers
from orchestrator.report.complete import wait_for_last_epoch
from orchestrator.report.gallery import gallery_of
from orchestrator.report.html import render_report
from orchestrator.report.summary import build_summary, read_summary
from orchestrator.storage import (
    Ownership,
    StorageError,
    StorageUnavailable,
    owned,
)
from orchestrator.storage.retry import outlasting
from orchestrator.telemetry.events import RunFinished, RunStarted
from orchestrator.telemetry.record import MERGED, EventReader, EventWriter, merge_events
from orchestrator.telemetry.state import read_state, write_state
from sdnet.cli.command_line import refuse_small_address_space
from sdnet.errors import InputError
from sdnet.paths import full_path, printable_path
from sdnet.preparation.prepare import notes_on_result

logger = logging.getLogger(__name__)

# Bytes of address space that a rank needs, with Ray's smallest object store in it; measured on two CPUs. With less,
# ranks end after a minute.
_LEAST_ADDRESS_SPACE = 5000 << 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """The content of summary.json, and whether the run had finished before this launch."""

    summary: dict[str, object]
    already_done: bool


class StorageRefused(OrchestratorError):
    """The final files of a run could not be written. Example: the disk is full."""

    def __init__(self, path: str, detail: str, reason: str | None):
        super().__init__(path, detail, reason)
        self.path, self.detail, self.reason = path, detail, reason

    def __str__(self) -> str:
        ended = f"{self.reason}; also, " if self.reason else ""
        return (
            f"{ended}storage {self.path} could not be written ({self.detail}); "
            "free or mount it, and launch again to resume"
        )


def launch(spec: JobSpec) -> Outcome:
    """Run the job to its end.

    Launched again, it resumes where the last launch stopped; a finished job is not run again. Raises InputError for
    what the user can correct and OrchestratorError otherwise. If the stages had begun, summary.json says `failed`, or
    `stopped` after an interrupt.
    """
    run = RunDirectory.of(spec.storage, spec.name)
    with _only_launch(spec, run) as owning, _event_writer(run, owning) as events:
        summary = finished_summary(spec, run, events.record)
        if summary is not None:
            _warn_of_missing_data(run)
            return Outcome(summary, already_done=True)
        if spec.cluster.address == "local":
            refuse_small_address_space(_LEAST_ADDRESS_SPACE)
        notes = _claim(spec, run, owning)
        lease = owning.lease
        state = read_state(run.storage, lease.number)
        write_state(run.storage, replace(state, lease=lease.number, ended=None))
        events.record(
            RunStarted(run=spec.name, host=lease.owner.host, pid=lease.owner.pid, lease=lease.number)
        )
        with _ended_in_writing(spec, run, events, owning):
            _run_stages(spec, run, events, owning, notes)
    return Outcome(read_summary(run) or {}, already_done=False)


def preprocess_only(spec: JobSpec) -> dict[str, Any]:
    """Run the first stage alone and return its manifest."""
    run = RunDirectory.of(spec.storage, spec.name)
    with _only_launch(spec, run) as owning:
        notes = _claim(spec, run, owning)
        with ray_session(spec.cluster), _event_writer(run, owning) as events:
            # Imported late: it imports Ray, which reads the environment that the session prepares.
            from orchestrator.job.stages.preprocess import preprocess

            _print(notes)
            manifest = preprocess(spec, run, events.record, owning.check)
            _print(notes_on_result(manifest))
            return manifest


def _event_writer(run: RunDirectory, owning: Ownership) -> EventWriter:
    return EventWriter(run.storage, guard=owning.confirm, lease=owning.lease.number)


def _run_stages(
    spec: JobSpec, run: RunDirectory, events: EventWriter, owning: Ownership, notes: tuple[str, ...]
) -> None:
    with ray_session(spec.cluster):
        # Imported late: both import Ray, which reads the environment that the session prepares. Signals wait: an
        # exception in the middle of MindSpore's import would crash the process.
        with keeping_signal_handlers():
            from orchestrator.job.stages.preprocess import preprocess
            from orchestrator.job.stages.train import train

        _print(notes)
        _print(notes_on_result(preprocess(spec, run, events.record, owning.check)))
        refuse_other_data(run, *data_files(run))
        last = train(spec, run, events.record, owning.lease)
        wait_for_last_epoch(run.storage, last.step)


@contextlib.contextmanager
def _ended_in_writing(
    spec: JobSpec, run: RunDirectory, events: EventWriter, owning: Ownership
) -> Iterator[None]:
    """Record how the block ends in the run's files. Raises RunLost if another launch owns the run."""
    status, reason = "failed", None
    try:
        yield
        status = "succeeded"
    except KeyboardInterrupt:
        status, reason = "stopped", "interrupted"
        raise
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise
    finally:
        lost = owning.lost()
        if lost is not None:
            raise lost
        events.record(RunFinished(status=status, reason=reason, lease=owning.lease.number))
        # After success, wait until storage is back: the result must not be lost. A failed run need not wait.
        timeout_s = spec.recovery.storage_timeout_s if status == "succeeded" else 0.0
        write = functools.partial(_write_end, spec, run, events, owning, status, reason)
        try:
            outlasting(run.storage, write, timeout_s)
        except (StorageError, InputError) as error:
            raise StorageRefused(str(run.root), getattr(error, "detail", str(error)), reason) from error


@data_errors("the run's files")
def _write_end(
    spec: JobSpec,
    run: RunDirectory,
    events: EventWriter,
    owning: Ownership,
    status: str,
    reason: str | None,
) -> None:
    """Write the final files of a run. summary.json is the last one: if it exists, the others exist, too.

    Their names do not contain the lease's number, so ownership is checked right before each is written.
    """
    storage = run.storage
    if not events.flush():
        raise StorageUnavailable(MERGED, "the last events were refused")
    history = EventReader(storage).read()
    owning.check()
    merge_events(storage)
    state = read_state(storage, owning.lease.number)
    write_state(storage, replace(state, ended=state.ended or reason))
    summary = build_summary(spec, run, history, status)
    owning.check()
    storage.put(run.report.name, render_report(summary, history, gallery_of(spec, run)).encode())
    owning.check()
    storage.put(run.summary.name, (json.dumps(summary, indent=2) + "\n").encode())


def _warn_of_missing_data(run: RunDirectory) -> None:
    gone = [path.name for path in data_files(run) if not path.exists()]
    if gone:
        logger.warning(
            "missing from the finished run %s: %s; `preprocess` makes the data again",
            run.root,
            ", ".join(gone),
        )


def _claim(spec: JobSpec, run: RunDirectory, owning: Ownership) -> tuple[str, ...]:
    """Check the inputs, then write job.yaml: now the directory belongs to this job. Returns notes on the inputs."""
    supply = check_inputs(spec)
    refuse_changed_inputs(spec, run)
    owning.check()  # the check of the inputs may take long, and the name does not contain the lease's number
    run.storage.put(run.job.name, yaml_text(_recorded(spec, run)).encode())
    return notes_of(spec, supply) if spec != demo_spec(spec.storage) else ()


def _recorded(spec: JobSpec, run: RunDirectory) -> dict[str, Any]:
    """The job for job.yaml. Its paths are those that this launch uses: a directory and a link may change later."""
    values = spec.values()
    folders = {key: values["data"][key] for key in ("images", "prepared") if key in values["data"]}
    real = {key: printable_path(str(full_path(folder, f"data.{key}"))) for key, folder in folders.items()}
    return {**values, "storage": str(run.root.parent), "data": {**values["data"], **real}}


def _print(notes: tuple[str, ...]) -> None:
    """Print the notes. Call it when nothing can refuse the job any more: a refusal prints one line only."""
    for note in notes:
        logger.warning("note: %s", note)


@contextlib.contextmanager
def _only_launch(spec: JobSpec, run: RunDirectory) -> Iterator[Ownership]:
    """Own the run, in a directory that can be used and belongs to this job."""
    check_new_run(spec)
    run.create()
    with _named_in(run), owned(run.storage) as owning:
        with data_errors(run.checkpoints.name):
            run.refuse_training()
        refuse_another_job(spec, run)
        yield owning


@contextlib.contextmanager
def _named_in(run: RunDirectory) -> Iterator[None]:
    """Add the run's path to storage errors of this block: an object's name alone does not identify the run."""
    try:
        yield
    except StorageError as error:
        raise type(error)(str(run.root / error.name), error.detail) from error
