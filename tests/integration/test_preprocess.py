"""The preprocess stage on a real Ray: the same bytes for any number of workers and through real kills."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.job.data.inputs import work_of
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import JobSpec, spec_from_dict
from orchestrator.ray_cluster.environment import prepare_environment
from orchestrator.telemetry.events import ShardDone, ShardLost, StageFinished
from orchestrator.telemetry.record import EventWriter
from sdnet.config import SyntheticConfig
from sdnet.errors import InputError
from sdnet.preparation.prepare import prepare
from sdnet.preparation.synthetic import make_tree
from tests.integration.shard_trap import Trap
from tests.launching import events_of, names_of, wait_for

pytestmark = pytest.mark.integration
PAIRS, SHARDS = 48, 6
ROOT = Path(__file__).resolve().parents[2]
# `preprocess`, with a trap in one of its shards.
TRAPPED = """
import sys
from pathlib import Path
from orchestrator.job.stages import preprocess
from tests.integration.shard_trap import make_shard_or_wait
fifo, shard, job = sys.argv[1:]
preprocess.make_shard = make_shard_or_wait(Path(fifo), shard)
sys.argv = ["sdnet-orchestrate", "preprocess", job]
from orchestrator.cli import main
main()
"""
Stage = Callable[[JobSpec, RunDirectory], dict]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """The stage, in a Ray of 7 CPUs that this module shares."""
    prepare_environment()
    os.environ.setdefault("RAY_AUTH_TOKEN", "0" * 64)
    import ray

    from orchestrator.job.stages.preprocess import preprocess

    ray.init(address="local", num_cpus=7, include_dashboard=False, log_to_driver=False)

    def run_stage(spec: JobSpec, run: RunDirectory) -> dict:
        with EventWriter(run.storage) as events:
            return preprocess(spec, run, events.record)

    yield run_stage
    ray.shutdown()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SEN1-2 tree of 6 scenes."""
    root = tmp_path_factory.mktemp("pairs") / "images"
    make_tree(root, SyntheticConfig(pairs=PAIRS, scenes=6))
    return root


@pytest.fixture(scope="module")
def expected(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The result of one process, without Ray."""
    run = RunDirectory(tmp_path_factory.mktemp("expected"))
    run.create()
    prepare(work_of(job(images, Path()).data, images, run))
    return results(run.data)


def job(images: Path, storage: Path, **data: object) -> JobSpec:
    return spec_from_dict(
        {
            "name": "job",
            "storage": str(storage),
            "train": {"recipe": "demo"},
            "data": {"images": str(images), **data},
        },
        "test",
    )


def directory(spec: JobSpec) -> RunDirectory:
    run = RunDirectory.of(spec.storage, spec.name)
    run.create()
    return run


def results(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in ("train.npz", "test.npz", "manifest.json")}


def shards_done(run: RunDirectory) -> list[str]:
    return [done.shard for done in events_of(run, ShardDone)]


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_any_number_of_workers_makes_the_bytes_of_one_process(
    stage, images, expected, tmp_path, monkeypatch, workers
):
    import ray

    from orchestrator.job.stages import preprocess as module

    # A task asks for one CPU; with fewer tasks in flight than CPUs, fewer workers work.
    monkeypatch.setattr(module, "_AHEAD", workers - int(ray.cluster_resources()["CPU"]))
    spec = job(images, tmp_path)
    run = directory(spec)
    stage(spec, run)
    assert results(run.data) == expected
    assert len(shards_done(run)) == SHARDS and not list(run.data.rglob(".*"))


def test_a_killed_worker_costs_its_shard_only_and_no_byte(stage, images, expected, tmp_path, monkeypatch):
    from orchestrator.job.stages import preprocess as module

    spec = job(images, tmp_path)
    run, trap = directory(spec), Trap(tmp_path)
    monkeypatch.setattr(module, "make_shard", trap.make_shard())
    killed = trap.when_a_worker_is_in_it(lambda pid: os.kill(pid, signal.SIGKILL))
    stage(spec, run)
    assert killed.result(timeout=60) != os.getpid()
    assert [(lost.shard, lost.times) for lost in events_of(run, ShardLost)] == [(trap.shard, 1)]
    assert results(run.data) == expected
    assert sorted(shards_done(run)).count(trap.shard) == 1 and len(shards_done(run)) == SHARDS


def test_after_the_launcher_was_killed_only_what_was_missing_is_made(stage, images, expected, tmp_path):
    import ray

    spec = job(images, tmp_path)
    run, trap = directory(spec), Trap(tmp_path)
    address = ray.get_runtime_context().gcs_address
    path = tmp_path / "job.yaml"
    raw = {**spec.values(), "cluster": {"address": address}}
    path.write_text(json.dumps(raw), encoding="utf-8")
    launcher = subprocess.Popen(
        [sys.executable, "-c", TRAPPED, str(trap.fifo), trap.shard, str(path)], cwd=ROOT
    )

    def kill_the_launcher(worker: int) -> None:
        _wait_for_shards(run, SHARDS - 1)
        launcher.kill()

    trapped = trap.when_a_worker_is_in_it(kill_the_launcher)
    assert launcher.wait(timeout=120) == -signal.SIGKILL
    trapped.result(timeout=60)
    before = shards_done(run)
    assert len(before) == SHARDS - 1 and trap.shard not in before
    stage(spec, run)
    assert sorted(shards_done(run)) == sorted([*before, trap.shard])
    assert results(run.data) == expected


def test_a_finished_stage_is_not_done_again(stage, images, tmp_path):
    spec = job(images, tmp_path)
    run = directory(spec)
    manifest = stage(spec, run)
    before = {path: path.stat().st_mtime_ns for path in run.data.rglob("*")}
    assert stage(spec, run) == manifest
    assert {path: path.stat().st_mtime_ns for path in run.data.rglob("*")} == before
    assert len(shards_done(run)) == SHARDS


def test_a_shard_that_kills_each_of_its_workers_ends_the_stage_and_is_named(
    stage, images, tmp_path, monkeypatch
):
    from orchestrator.job.stages import preprocess as module

    make = module.make_shard

    def make_or_die(shard, directory, config):
        if shard.name == "train-00002":
            os.kill(os.getpid(), signal.SIGKILL)
        return make(shard, directory, config)

    monkeypatch.setattr(module, "make_shard", make_or_die)
    spec = job(images, tmp_path)
    with pytest.raises(module.ShardLost, match=r"shard train-00002 was lost 4 times, at last by: "):
        stage(spec, directory(spec))


def test_storage_that_refuses_a_write_ends_the_stage_in_one_line(stage, images, tmp_path):
    from orchestrator.job.stages.preprocess import DataNotWritten

    spec = job(images, tmp_path)
    run = directory(spec)
    (run.data / "shards/train-00001.npz").mkdir(parents=True)
    with pytest.raises(DataNotWritten, match=r"could not be written to .*data \(Is a directory\)") as refusal:
        stage(spec, run)
    assert "\n" not in str(refusal.value)


def test_too_many_bad_images_end_the_stage_and_few_are_in_its_manifest(stage, images, tmp_path):
    root = _copied(images, tmp_path)
    bad = sorted(root.glob("*/s2_*/*.png"))[3]
    bad.write_bytes(bad.read_bytes()[:1000])
    spec = job(root, tmp_path)
    with pytest.raises(InputError, match=r"1 bad images for 48 pairs.*is a truncated PNG"):
        stage(spec, directory(spec))
    manifest = stage(job(root, tmp_path, max_bad_images=0.03), directory(spec))
    assert [item["image"] for item in manifest["skipped"]] == [bad.relative_to(root).as_posix()]


def test_progress_is_recorded_with_each_shard(stage, images, tmp_path):
    spec = job(images, tmp_path)
    run = directory(spec)
    manifest = stage(spec, run)
    assert names_of(run) == ["stage_started", *["shard_done"] * SHARDS, "stage_finished"]
    shards = events_of(run, ShardDone)
    assert [shard.done for shard in shards] == list(range(1, SHARDS + 1))
    assert all(shard.shards == SHARDS for shard in shards)
    assert all(shard.patches > 0 and shard.pairs_per_s > 0 for shard in shards)
    [finished] = events_of(run, StageFinished)
    assert (finished.patches, finished.skipped) == (manifest["patches"], 0)
    assert finished.seconds is not None and finished.seconds > 0


def _copied(images: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(images, tmp_path / "images"))


def _wait_for_shards(run: RunDirectory, count: int) -> None:
    wait_for(run, ShardDone, lambda shard: shard.done == count)
