"""Real faults in the step itself: a bug ends the run, which survives a late rank and a lack of memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ray._private.utils import get_system_memory, get_used_memory

from orchestrator.job.run_directory import RunDirectory
from orchestrator.telemetry.events import FailureDetected, GivingUp, GroupStarted
from tests.integration.jobs import FAULTY_LAUNCH, job_file, weights
from tests.integration.ray_node import RayCluster
from tests.launching import NoteSeconds, events_of, times_of

pytestmark = [pytest.mark.integration, pytest.mark.soak]

# Above what the job needs by itself.
ROOM = 6 * 10**9


def launch_with(
    fault: str, cluster: RayCluster, storage: Path, name: str, *options: str, **environment: str
) -> tuple["subprocess.CompletedProcess[str]", RunDirectory]:
    """Launch the job of this name, with a fault in its fourth step, to its end."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTY_LAUNCH, fault, "launch", str(job_file(storage, name)), *options],
        cwd=Path(__file__).parent,  # Ray lets the ranks import from here
        env={**cluster.environment, **environment},
        capture_output=True, text=True,
    )  # fmt: skip
    return done, RunDirectory(storage / name)


def test_a_bug_in_the_step_is_retried_once_and_ends_the_run_in_one_line(
    ray_cluster: RayCluster, storage: Path
) -> None:
    done, run = launch_with("bug", ray_cluster, storage, "bug")
    assert done.returncode == 1
    [note, line] = done.stderr.splitlines()
    assert note.startswith("note: ") and "synthetic pairs" in note
    assert "the fourth step does not add up" in line and "the step after 3 failed 2 times" in line
    failures = events_of(run, FailureDetected)
    assert [(failure.kind, failure.step) for failure in failures] == [("step_failed", 3)] * 2
    [given_up] = events_of(run, GivingUp)
    assert given_up.reason == "the step after 3 failed 2 times the same way"
    assert json.loads(run.summary.read_text())["status"] == "failed"


def test_an_exception_in_the_step_that_does_not_recur_costs_a_restart(
    ray_cluster: RayCluster, clean: RunDirectory, storage: Path, note_seconds: NoteSeconds
) -> None:
    done, run = launch_with("accident", ray_cluster, storage, "accident")
    assert done.returncode == 0, done.stdout + done.stderr
    [failure] = events_of(run, FailureDetected)
    assert (failure.kind, failure.step) == ("step_failed", 3)
    assert "the fourth step did not add up this time" in failure.detail
    note_seconds(run, times_of(run, FailureDetected)[0])
    assert weights(run) == weights(clean)


def test_a_rank_may_be_late_as_long_as_the_watchdog_allows(
    ray_cluster: RayCluster, clean: RunDirectory, storage: Path
) -> None:
    allowed = ("--set", "recovery.step_timeout_s=300")
    done, run = launch_with("late", ray_cluster, storage, "late", *allowed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (run.root / "was_late").exists()
    assert not events_of(run, FailureDetected) and len(events_of(run, GroupStarted)) == 1
    assert weights(run) == weights(clean)


def test_a_rank_that_takes_all_memory_is_killed_and_reported_and_replaced(
    ray_cluster: RayCluster, clean: RunDirectory, storage: Path, note_seconds: NoteSeconds
) -> None:
    # A Ray of its own, with a memory limit slightly above what the job needs.
    done, run = launch_with(
        "memory", ray_cluster, storage, "starved",
        "--set", "cluster.address=local",
        RAY_memory_usage_threshold=str((get_used_memory() + ROOM) / get_system_memory()),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    failures = events_of(run, FailureDetected)
    # More may be killed until the kernel has freed the rank's memory.
    assert {failure.kind for failure in failures} == {"out_of_memory"}
    assert failures[0].rank is not None and "low on memory" in failures[0].detail
    assert (run.root / "memory_taken").exists()
    assert len(events_of(run, GroupStarted)) == 2
    note_seconds(run, times_of(run, FailureDetected)[0])
    assert weights(run) == weights(clean)
