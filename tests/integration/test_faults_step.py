"""What goes wrong inside a rank's process, for real: a bug in the step, memory that runs out."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.run_directory import RunDirectory
from tests.integration.jobs import job_file, launch, pid_of, stopped, succeeded, weights
from tests.integration.ray_node import RayCluster, running_node
from tests.launching import events_of, saved, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.soak, pytest.mark.timeout(300)]

# `sdnet-orchestrate`, with a training function whose fourth step is not what it should be.
WITH_A_BUG = """
from orchestrator.cli import main
from orchestrator.ray_session import prepare_environment

prepare_environment()
from orchestrator.stages import train as stage

def train_with_a_bug(job, right=stage.train_rank):
    from sdnet.trainer import Trainer

    step = Trainer.step

    def step_or_raise(trainer):
        if trainer.progress.step == 3:
            raise ArithmeticError("the fourth step does not add up")
        step(trainer)

    Trainer.step = step_or_raise
    return right(job)

stage.train_rank = train_with_a_bug
main()
"""


def test_a_bug_in_the_step_is_tried_once_more_and_ends_the_run_in_one_line(
    ray_cluster: RayCluster, storage: Path
) -> None:
    run = RunDirectory(storage / "bug")
    done = subprocess.run(
        [sys.executable, "-c", WITH_A_BUG, "launch", str(job_file(storage, "bug"))],
        env={**ray_cluster.environment, "RAY_ADDRESS": ray_cluster.address}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "the fourth step does not add up" in line and "the step after 3 failed 2 times" in line
    failures = events_of(run, "failure_detected")
    assert [(failure["kind"], failure["step"]) for failure in failures] == [("step_failed", 3)] * 2
    [given_up] = events_of(run, "giving_up")
    assert given_up["reason"] == "the step after 3 failed 2 times the same way"
    assert json.loads(run.summary.read_text())["status"] == "failed"


# What is used now and that much more is the most that the node allows; the hog takes it, and little else.
_ROOM, _CHUNK, _AT_MOST = 2 << 30, 64 << 20, 4 << 30


@pytest.fixture(scope="module")
def short_of_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A node whose memory monitor looks rarely enough to kill one process and not a second one."""
    memory = psutil.virtual_memory()
    threshold = (memory.total - memory.available + _ROOM) / memory.total
    limit = {"RAY_memory_usage_threshold": f"{threshold:.4f}", "RAY_memory_monitor_refresh_ms": "3000"}
    with running_node(tmp_path_factory.mktemp("short"), **limit) as cluster:
        yield cluster


@contextlib.contextmanager
def hog() -> Iterator[None]:
    """A process that takes more and more memory, up to a bound, until the block ends."""
    program = f"""
import time
held = []
while len(held) * {_CHUNK} < {_AT_MOST}:
    held.append(b"x" * {_CHUNK})
    time.sleep(0.02)
time.sleep(300)
"""
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def test_a_rank_that_is_killed_for_memory_is_told_so_and_replaced(
    short_of_memory: RayCluster, clean: RunDirectory, tmp_path: Path
) -> None:
    process, run = launch(short_of_memory, tmp_path, "starved")
    ranks = [psutil.Process(pid_of(run, rank)) for rank in (0, 1)]
    wait_for(run, saved(1))
    with stopped(ranks), hog():
        wait_for(run, lambda event: event["event"] == "failure_detected")
    succeeded(process)
    [failure] = events_of(run, "failure_detected")
    assert failure["kind"] == "out_of_memory" and failure["rank"] in (0, 1)
    assert weights(run) == weights(clean)
