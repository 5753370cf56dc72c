"""A bug in the step, for real: tried once more, and then the end of the run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.run_directory import RunDirectory
from tests.integration.jobs import job_file
from tests.integration.ray_node import RayCluster
from tests.launching import events_of

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
