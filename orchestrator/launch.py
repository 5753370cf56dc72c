"""`launch`: one job from cluster.yaml to summary.json, resuming whatever is already done."""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator

import yaml

from orchestrator.events import EventLog
from orchestrator.ray_session import ray_session
from orchestrator.report.summary import build_summary, read_summary
from orchestrator.run_directory import RunDirectory, write_atomically, write_json
from orchestrator.spec import JobSpec
from sdnet.errors import InputError

# What decides the bytes of the result; a run directory holds one such job for good.
_IDENTITY = ("data", "train", "evaluate")


def launch(spec: JobSpec) -> dict:
    """Run the job to its end and return what summary.json holds.

    Launched again, it goes on where the last launch stopped; a finished job is not run again.
    Raises InputError for what the user can correct, and what the stages raise otherwise; then
    summary.json says `failed` or `stopped`.
    """
    run = RunDirectory.of(spec.storage, spec.name)
    run.create()
    with _only_launch(run):
        _same_job(spec, run)
        summary = read_summary(run)
        if summary is not None and summary["status"] == "succeeded":
            return summary
        return _run_stages(spec, run)


def _run_stages(spec: JobSpec, run: RunDirectory) -> dict:
    from orchestrator.stages.preprocess import preprocess

    events = EventLog(run.events)
    events.emit("run_started", name=spec.name, host=socket.gethostname(), pid=os.getpid())
    status, reason = "failed", None
    try:
        with ray_session(spec.cluster):
            preprocess(spec, run, events)
            # Imports MindSpore's Ray Train backend, which needs a prepared environment.
            from orchestrator.stages.train import train

            train(spec, run, events)
        status = "succeeded"
    except KeyboardInterrupt:
        status, reason = "stopped", "interrupted"
        raise
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise
    finally:
        events.emit("run_finished", status=status, reason=reason)
        write_json(run.summary, build_summary(spec, run, events, status))
    return read_summary(run) or {}


def _same_job(spec: JobSpec, run: RunDirectory) -> None:
    """Write job.yaml, or refuse when the directory belongs to a job with other data or another recipe."""
    now = spec.model_dump(mode="json")
    if run.job.exists():
        before = yaml.safe_load(run.job.read_text(encoding="utf-8"))
        changed = [key for key in _IDENTITY if before.get(key) != now[key]]
        if changed or _ranks(before) != _ranks(now):
            what = ", ".join(changed) or "cluster.workers"
            raise InputError(
                f"{run.root} belongs to a job with other {what}; give the job another `name`, "
                "or delete the directory to begin again"
            )
    write_atomically(run.job, yaml.safe_dump(now, sort_keys=False))


def _ranks(job: dict) -> tuple[int, int]:
    workers = job["cluster"]["workers"]
    return (workers if isinstance(workers, int) else workers[1], job["cluster"]["threads"])


@contextlib.contextmanager
def _only_launch(run: RunDirectory) -> Iterator[None]:
    """Hold the run's lock: a second launch of it refuses. The system drops the lock with its holder."""
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
        yield
