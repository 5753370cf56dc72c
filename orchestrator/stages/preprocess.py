"""The preprocess stage: shards of pairs become patches on Ray workers, then one train.npz and test.npz."""

import time
from collections import deque
from pathlib import Path
from typing import Any

import ray

from orchestrator.events import EventLog
from orchestrator.run_directory import RunDirectory
from orchestrator.spec import JobSpec
from sdnet.config import PatchConfig
from sdnet.data.prepare import Work, merge, plan_work, read_good_manifest, work_fingerprint
from sdnet.data.shards import Shard, ShardReport, make_shard, read_good_shard
from sdnet.data.store import open_patches
from sdnet.data.synthetic import make_tree

# Tasks submitted beyond those that can run now: enough that no worker waits for the controller.
_AHEAD = 2
_TRIES = 4


def preprocess(spec: JobSpec, run: RunDirectory, events: EventLog) -> dict[str, Any]:
    """Make data/train.npz, data/test.npz and data/manifest.json; returns the manifest.

    Shards whose sums are right are not made again, and neither is a finished result. Needs a
    connected Ray, unless the job brings prepared files. Raises InputError when the images
    cannot make a training and a test set.
    """
    if spec.data.prepared is not None:
        return _use_prepared(Path(spec.data.prepared), run)
    events.emit("stage_started", stage="preprocess")
    images = _images(spec, run)
    work = plan_work(images, spec.data.split)
    directory = run.data / "shards"
    directory.mkdir(parents=True, exist_ok=True)
    reports = _make_shards(work, directory, spec.data.patches, events)
    manifest = read_good_manifest(
        run.data, work_fingerprint(reports, spec.data.patches, spec.data.split.seed)
    )
    if manifest is None:
        manifest = merge(
            work,
            reports,
            directory,
            run.data,
            spec.data.patches,
            spec.data.split.seed,
            spec.data.max_bad_images,
        )
    events.emit(
        "stage_finished", stage="preprocess", patches=manifest["patches"], skipped=len(manifest["skipped"])
    )
    return manifest


def _images(spec: JobSpec, run: RunDirectory) -> Path:
    if spec.data.images is not None:
        return Path(spec.data.images).expanduser().resolve()
    images = run.data / "synthetic"
    make_tree(images, spec.data.synthetic)
    return images


def _use_prepared(folder: Path, run: RunDirectory) -> dict[str, Any]:
    """Link the run to files made elsewhere; they are checked, not copied."""
    counts = {}
    for name, link in (("train", run.train_npz), ("test", run.test_npz)):
        source = (folder / link.name).expanduser().resolve()
        counts[name] = len(open_patches(source))
        link.unlink(missing_ok=True)
        link.symlink_to(source)
    return {"patches": counts, "skipped": []}


def _make_shards(
    work: Work, directory: Path, config: PatchConfig, events: EventLog
) -> dict[str, ShardReport]:
    """Every shard's report, from disk where it is good and from a task where it is not."""
    progress = _Progress(events, len(work.shards))
    reports: dict[str, ShardReport] = {}
    missing = []
    for shard in work.shards:
        report = read_good_shard(shard, directory, config)
        if report is None:
            missing.append(shard)
        else:
            reports[shard.name] = report
    progress.skip(len(reports))
    waiting = deque(missing)
    running: dict[ray.ObjectRef, Shard] = {}
    most = int(ray.cluster_resources().get("CPU", 1)) + _AHEAD
    # Ray runs a task again when its worker or its host is lost; the shard is written whole or not at all.
    task = ray.remote(num_cpus=1, max_retries=_TRIES)(make_shard)
    while True:
        while waiting and len(running) < most:
            shard = waiting.popleft()
            running[task.remote(shard, directory, config)] = shard
        if not running:
            return reports
        [done], _ = ray.wait(list(running))
        shard = running.pop(done)
        reports[shard.name] = ray.get(done)
        progress.done(shard, reports[shard.name])


class _Progress:
    """Tells of each finished shard, with the rate since the stage began."""

    def __init__(self, events: EventLog, shards: int):
        self._events, self._shards = events, shards
        self._done = self._pairs = 0
        self._began = time.monotonic()

    def skip(self, shards: int) -> None:
        self._done += shards

    def done(self, shard: Shard, report: ShardReport) -> None:
        self._done += 1
        self._pairs += len(shard.pairs)
        rate = self._pairs / max(time.monotonic() - self._began, 1e-9)
        self._events.emit(
            "shard_done", shard=shard.name, patches=report.patches, skipped=len(report.skipped),
            done=self._done, shards=self._shards, pairs_per_s=round(rate, 1),
        )  # fmt: skip
