"""`launch`: one job from cluster.yaml to summary.json, resuming whatever is already done."""

import contextlib
import fcntl
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from orchestrator.demo import demo_spec
from orchestrator.errors import OrchestratorError
from orchestrator.events import EventLog
from orchestrator.inputs import (
    check_inputs,
    data_identity,
    prepared_files,
    refuse_changed_since_finished,
    refuse_other_data,
)
from orchestrator.ray_session import ray_session
from orchestrator.report.html import render_report
from orchestrator.report.summary import build_summary, read_summary
from orchestrator.run_directory import RunDirectory, write_atomically, write_json
from orchestrator.spec import JobSpec
from sdnet.errors import InputError

logger = logging.getLogger(__name__)

# Below it Ray unpacks the working directory of a submitted job.
_RAYS_COPIES = "working_dir_files"
# What decides the bytes of the result.
_IDENTITY = ("data", "train", "evaluate")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What summary.json holds, and whether it did so before this launch."""

    summary: dict[str, Any]
    already_done: bool


class StorageRefused(OrchestratorError):
    """The end of a run could not be written down. Example: the disk is full."""

    def __init__(self, path: str, detail: str, reason: str | None):
        super().__init__(path, detail, reason)
        self.path, self.detail, self.reason = path, detail, reason

    def __str__(self) -> str:
        ended = f"{self.reason}; also, " if self.reason else ""
        return (
            f"{ended}storage {self.path} could not be written ({self.detail}); "
            "free or mount it, and launch again to go on"
        )


def launch(spec: JobSpec) -> Outcome:
    """Run the job to its end.

    Launched again, it goes on where the last launch stopped; a finished job is not run again.
    Raises InputError for what the user can correct and JobFailed otherwise; summary.json then
    says `failed` or `stopped`.
    """
    run = RunDirectory.of(spec.storage, spec.name)
    with _only_launch(spec, run):
        summary = read_summary(run)
        if summary is not None and summary["status"] == "succeeded":
            refuse_changed_since_finished(spec, run)
            return Outcome(summary, already_done=True)
        notes = _claim(spec, run)
        _tell_of_passing_storage(run)
        events = EventLog(run.events)
        events.emit("run_started", name=spec.name, host=socket.gethostname(), pid=os.getpid())
        with terminated_as_interrupted(), _summarised(spec, run, events):
            _run_stages(spec, run, events, notes)
    return Outcome(read_summary(run) or {}, already_done=False)


def preprocess_only(spec: JobSpec) -> dict[str, Any]:
    """Run the first stage alone and return its manifest."""
    from orchestrator.stages.preprocess import preprocess

    run = RunDirectory.of(spec.storage, spec.name)
    with _only_launch(spec, run):
        notes = _claim(spec, run)
        with ray_session(spec.cluster):
            _report(notes)
            return preprocess(spec, run, EventLog(run.events))


def _run_stages(spec: JobSpec, run: RunDirectory, events: EventLog, notes: tuple[str, ...]) -> None:
    # Anew: a Ray that is started here takes SIGTERM for itself.
    with ray_session(spec.cluster), terminated_as_interrupted():
        # Imported late: both import Ray, which reads the environment that the session prepares.
        from orchestrator.stages.preprocess import preprocess
        from orchestrator.stages.train import train

        _report(notes)
        preprocess(spec, run, events)
        refuse_other_data(run, run.train_npz, run.test_npz)
        train(spec, run, events)


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """`ray job stop` and service managers send SIGTERM: end as cleanly as after Ctrl-C.

    Once is enough: `timeout` sends it twice, and the second would end what the first began.
    """

    def interrupt(signum: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _summarised(spec: JobSpec, run: RunDirectory, events: EventLog) -> Iterator[None]:
    """Whatever ends the block, the run says how it ended."""
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
        events.emit("run_finished", status=status, reason=reason)
        try:
            summary = build_summary(spec, run, events, status)
            write_atomically(run.report, render_report(summary, events.read()))
            write_json(run.summary, summary)
        except OSError as error:
            raise StorageRefused(str(run.root), error.strerror or str(error), reason) from error


def _refuse_another_job(spec: JobSpec, run: RunDirectory) -> None:
    """Refuse when the directory holds checkpoints of other data, another recipe or other ranks.

    Before there is one a mistake in the job can be corrected: shards are made again where they must be.
    """
    if not (run.job.exists() and run.holds_checkpoints()):
        return
    before, now = yaml.safe_load(run.job.read_text(encoding="utf-8")), spec.model_dump(mode="json")
    for job in (before, now):
        job["data"] = data_identity(job["data"])
    changed = [key for key in _IDENTITY if before.get(key) != now[key]]
    if _ranks(before) != _ranks(now):
        changed.append("cluster.workers or threads")
    if changed:
        raise InputError(
            f"{run.root} holds a job with other {', '.join(changed)}; give the job another `name`, "
            "or delete the directory to begin again"
        )


def _claim(spec: JobSpec, run: RunDirectory) -> tuple[str, ...]:
    """Make the directory this job's, once its inputs are known to be usable; returns notes on them."""
    supply = check_inputs(spec)
    if spec.data.prepared is not None:
        refuse_other_data(run, *prepared_files(spec.data.prepared))
    write_atomically(run.job, yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False))
    return supply.notes if spec != demo_spec(spec.storage) else ()


def _report(notes: tuple[str, ...]) -> None:
    """Only when nothing is left that refuses the job: a refusal is one line."""
    for note in notes:
        logger.warning("note: %s", note)


def _tell_of_passing_storage(run: RunDirectory) -> None:
    """A relative `storage` of a submitted job is not where it was submitted."""
    if _RAYS_COPIES in run.root.parts:
        logger.warning(
            "the run lies in %s, Ray's copy of the submitted folder, which Ray may delete; "
            "give `storage` an absolute path to keep it",
            run.root,
        )


def _ranks(job: dict) -> tuple[int, int]:
    workers = job["cluster"]["workers"]
    return (workers if isinstance(workers, int) else workers[1], job["cluster"]["threads"])


@contextlib.contextmanager
def _only_launch(spec: JobSpec, run: RunDirectory) -> Iterator[None]:
    """Hold the run directory's lock: a second launch refuses.

    The system drops the lock with its holder, however that ends.
    """
    run.create()
    with (run.root / "launch.lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise InputError(
                f"{run.root} is being run by {lock.read().strip() or 'another launch'}; "
                "wait for it, stop it, or give this job another `name`"
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T')}\n")
        lock.flush()
        _refuse_another_job(spec, run)
        yield
