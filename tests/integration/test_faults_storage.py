"""Storage fails or fills up while a run trains, for real: the cost, and what remains valid."""

import fcntl
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.job.run_directory import RunDirectory
from orchestrator.telemetry.event import Event
from orchestrator.telemetry.events import (
    CheckpointCorrupt,
    CheckpointFailed,
    CheckpointSaved,
    FailureDetected,
    FirstStep,
    GroupStarting,
    Resumed,
    RunStarted,
)
from tests.disk import fill, small_disk
from tests.integration.jobs import launch, succeeded, weights
from tests.integration.ray_node import RayCluster
from tests.launching import (
    NoteSeconds,
    events_of,
    reuse_graphs,
    times_of,
    wait_for,
    wait_for_checkpoint,
)

pytestmark = pytest.mark.integration

# How long storage is unavailable or full.
_FAULT_S = 20.0


@pytest.mark.parametrize(
    ("moment", "part", "away_s"),
    [
        pytest.param(FirstStep, "", _FAULT_S, marks=pytest.mark.soak),
        (CheckpointSaved, "", 5.0),
        # Longer than rank 0 tries to save, so the group fails and waits for the folder.
        pytest.param(CheckpointSaved, "away/checkpoints", 60.0, marks=pytest.mark.soak),
    ],
    ids=["training", "saving", "checkpoints"],
)
def test_a_run_survives_storage_that_is_unavailable_for_a_while(
    ray_cluster: RayCluster,
    clean: RunDirectory,
    tmp_path: Path,
    moment: type[Event],
    part: str,
    away_s: float,
) -> None:
    mount, elsewhere = tmp_path / "mount", tmp_path / "elsewhere"
    mount.mkdir()
    reuse_graphs(clean, RunDirectory(mount / "away"))
    with (tmp_path / "held").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        process, run = launch(ray_cluster, mount, "away", fault="held")
        wait_for(run, moment)
        (mount / part).rename(elsewhere)
        (mount / part).touch()  # every operation below it fails, also creating it again
    time.sleep(away_s)
    (mount / part).unlink()
    elsewhere.rename(mount / part)
    succeeded(process)
    assert "cannot be used (Not a directory)" in (run.logs / "rank_0.log").read_text()
    failures = events_of(run, FailureDetected)
    assert {failure.kind for failure in failures} <= {"storage"}
    assert len(failures) + len(events_of(run, CheckpointFailed)) > 0
    assert json.loads(run.summary.read_text())["status"] == "succeeded"
    assert weights(run) == weights(clean)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 128) as path:
        yield path


@pytest.mark.soak
def test_a_disk_that_is_full_for_a_while_corrupts_no_checkpoint(
    ray_cluster: RayCluster, clean: RunDirectory, disk: Path
) -> None:
    process, run = launch(ray_cluster, disk, "full")
    wait_for_checkpoint(run, 1)
    filler = fill(disk)
    time.sleep(_FAULT_S)
    filler.unlink()
    succeeded(process)
    failed = events_of(run, CheckpointFailed)
    assert failed and all("No space left" in event.detail for event in failed)
    assert not events_of(run, CheckpointCorrupt)
    assert json.loads(run.summary.read_text())["status"] == "succeeded"
    assert weights(run) == weights(clean)


@pytest.mark.soak
def test_a_disk_that_stays_full_ends_the_run_in_one_line_and_it_can_be_resumed(
    ray_cluster: RayCluster, clean: RunDirectory, disk: Path, note_seconds: NoteSeconds
) -> None:
    options = ("--set", "checkpoint.every_s=3600", "--set", "recovery.storage_timeout_s=10")
    process, run = launch(ray_cluster, disk, "stuffed", *options)
    wait_for_checkpoint(run, 3)
    filler = fill(disk)
    output, _ = process.communicate()
    assert process.returncode == 1 and "Traceback" not in output
    assert str(disk) in output.splitlines()[-1] and "could not be written" in output.splitlines()[-1]
    filler.unlink()
    launched_at = time.time()
    again, _ = launch(ray_cluster, disk, "stuffed", *options)
    succeeded(again)
    note_seconds(run, launched_at)
    assert [event.step for event in events_of(run, Resumed)] == [3]
    assert not events_of(run, CheckpointCorrupt)
    assert weights(run) == weights(clean)


@pytest.mark.soak
def test_a_group_that_could_not_start_releases_its_resources_for_the_next(
    ray_cluster: RayCluster, clean: RunDirectory, tmp_path: Path, note_seconds: NoteSeconds
) -> None:
    logs, away = tmp_path / "blocked" / "logs", tmp_path / "away"
    with_a_scheduler = ("--set", "cluster.rendezvous=dynamic_cluster")
    process, run = launch(ray_cluster, tmp_path, "blocked", *with_a_scheduler)
    wait_for(run, GroupStarting)
    logs.rename(away)
    wait_for(run, FailureDetected)
    away.rename(logs)
    succeeded(process)
    note_seconds(run, times_of(run, FailureDetected)[0])
    failures = events_of(run, FailureDetected)
    assert {failure.kind for failure in failures} == {"storage"}
    assert str(logs) in failures[0].detail
    assert weights(run) == weights(clean)


@pytest.mark.soak
def test_a_log_that_cannot_be_written_stops_the_run_at_once_with_its_path(
    ray_cluster: RayCluster, clean: RunDirectory, tmp_path: Path
) -> None:
    process, run = launch(ray_cluster, tmp_path, "in-the-way")
    wait_for(run, RunStarted)
    (run.logs / "rank_1.log").mkdir()  # after the launch has looked
    output, _ = process.communicate()
    assert process.returncode == 1 and "Traceback" not in output
    assert "Is a directory" in output.splitlines()[-1] and "rank_1.log" in output.splitlines()[-1]
    assert [failure.kind for failure in events_of(run, FailureDetected)] == ["path_blocked"]
    (run.logs / "rank_1.log").rmdir()
    again, _ = launch(ray_cluster, tmp_path, "in-the-way")
    succeeded(again)
    assert weights(run) == weights(clean)
