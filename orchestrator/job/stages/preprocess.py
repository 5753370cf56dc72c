"""The preprocess stage: shards of pairs become patches on Ray workers, then one train.npz and test.npz."""

import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path

import ray
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    WorkerCrashedError,
)

from orchestrator.errors import OrchestratorError
from orchestrator.job.data.copies import data_errors
from orchestrator.job.data.files import refer_to, use_own_files
from orchestrator.job.data.inputs import images_folder, prepared_files, work_of
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import JobSpec
from orchestrator.telemetry import events
from orchestrator.telemetry.event import Event
from sdnet.data.store import open_patches, open_training_patches
from sdnet.preparation.copies import useless_pairs
from sdnet.preparation.prepare import finish, make_place
from sdnet.preparation.shards import Shard, ShardReport, make_shard, read_good_shard
from sdnet.preparation.synthetic import make_tree
from sdnet.preparation.work import Work

# Tasks submitted beyond those that can run now, so that no worker waits for the launcher.
_AHEAD = 2
# How often a shard is started. A shard that is lost every time probably kills its workers itself.
_TRIES = 4
_LOST = (WorkerCrashedError, NodeDiedError, OutOfMemoryError, ObjectLostError, LocalRayletDiedError)


class ShardLost(OrchestratorError):
    """Every worker that started a shard died before its end. Example: not enough memory."""

    def __init__(self, shard: str, reason: str):
        super().__init__(shard, reason)
        self.shard, self.reason = shard, reason

    def __str__(self) -> str:
        return (
            f"shard {self.shard} was lost {_TRIES} times, at last by: {self.reason}; "
            "look at the hosts' memory and Ray logs, then launch again: finished shards are kept"
        )


class DataNotWritten(OrchestratorError):
    """Storage refused the patches. Example: the disk is full."""

    def __init__(self, directory: str, reason: str):
        super().__init__(directory, reason)
        self.directory, self.reason = directory, reason

    def __str__(self) -> str:
        return (
            f"patches could not be written to {self.directory} ({self.reason}); "
            "free or mount the storage, then launch again: finished shards are kept"
        )


def preprocess(
    spec: JobSpec,
    run: RunDirectory,
    record: Callable[[Event], None],
    check_owner: Callable[[], None] = lambda: None,
) -> dict[str, object]:
    """Make data/train.npz, data/test.npz and data/manifest.json; returns the manifest.

    Reuses shards whose checksums match, and a finished result. Needs a connected Ray, except for prepared files.
    Raises InputError when the images do not give a training and a test set, ShardLost when the cluster fails, and
    DataNotWritten when the storage fails. check_owner: called before the run's data are replaced; raises RunLost when
    another launch, which may make other data, owns the run.
    """
    check_owner()
    if spec.data.prepared is not None:
        return _use_prepared(spec.data.prepared, run)
    record(events.StageStarted(stage="preprocess"))
    began = time.monotonic()
    try:
        use_own_files(run)
        work = work_of(spec.data, _images(spec, run), run)
        reports = _make_shards(work, record)
        check_owner()
        manifest = finish(work, reports)
    except OSError as error:
        cause = getattr(error, "cause", error)  # Ray wraps a task's own error
        raise DataNotWritten(str(run.data), cause.strerror or str(cause)) from error
    record(
        events.StageFinished(
            stage="preprocess",
            seconds=round(time.monotonic() - began, 3),
            patches=manifest["patches"],
            skipped=len(manifest["skipped"]),
        )
    )
    return manifest


def _images(spec: JobSpec, run: RunDirectory) -> Path:
    if spec.data.images is not None:
        return images_folder(spec.data.images)
    images = run.data / "synthetic"
    make_tree(images, spec.data.synthetic)
    return images


def _use_prepared(given: str, run: RunDirectory) -> dict[str, object]:
    """Let the run refer to files made elsewhere; they are checked, not copied."""
    train, test = prepared_files(given)
    with data_errors(str(train)):
        patches, tested = open_training_patches(train), open_patches(test)
        useless = useless_pairs(patches, tested)
        refer_to(run, train, test)
    counts = {"train": len(patches), "test": len(tested)}
    return {"patches": counts, "skipped": [], "copies": useless}


def _make_shards(work: Work, record: Callable[[Event], None]) -> dict[str, ShardReport]:
    """Every shard's report: from disk if its checksum matches, else from a new task."""
    make_place(work)
    found = {shard.name: read_good_shard(shard, work.directory, work.patches) for shard in work.shards}
    reports = {name: report for name, report in found.items() if report is not None}
    progress = _Progress(record, len(reports), len(work.shards))
    waiting = deque(shard for shard in work.shards if shard.name not in reports)
    running: dict[ray.ObjectRef, Shard] = {}
    losses: Counter[str] = Counter()
    most = int(ray.cluster_resources().get("CPU", 1)) + _AHEAD
    task = ray.remote(num_cpus=1, max_retries=0)(make_shard)  # the loop below starts lost shards again
    while waiting or running:
        while waiting and len(running) < most:
            shard = waiting.popleft()
            running[task.remote(shard, work.directory, work.patches)] = shard
        [done], _ = ray.wait(list(running))
        shard = running.pop(done)
        try:
            reports[shard.name] = ray.get(done)
        except _LOST as error:
            losses[shard.name] += 1
            reason = _first_line(error)
            record(events.ShardLost(shard=shard.name, times=losses[shard.name], reason=reason))
            if losses[shard.name] == _TRIES:
                raise ShardLost(shard.name, reason) from None
            waiting.append(shard)
        else:
            progress.done(shard, reports[shard.name])
    return reports


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


class _Progress:
    """Records each finished shard, with the rate since the stage began."""

    def __init__(self, record: Callable[[Event], None], done: int, shards: int):
        self._record, self._done, self._shards = record, done, shards
        self._pairs = 0
        self._began = time.monotonic()

    def done(self, shard: Shard, report: ShardReport) -> None:
        self._done += 1
        self._pairs += len(shard.pairs)
        rate = self._pairs / max(time.monotonic() - self._began, 1e-9)
        self._record(
            events.ShardDone(
                shard=shard.name,
                patches=report.patches,
                skipped=len(report.skipped),
                done=self._done,
                shards=self._shards,
                pairs_per_s=round(rate, 1),
            )
        )
