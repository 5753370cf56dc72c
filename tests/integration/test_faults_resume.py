"""Killed at random steps and resumed at the same size, a run ends with the same bytes and rates."""

import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from orchestrator.job.run_directory import RunDirectory
from orchestrator.telemetry.events import FailureDetected, GroupRestarting, GroupStarted, RankJoined, Resumed
from tests.integration.jobs import launch, succeeded, weights
from tests.integration.ray_node import RayCluster
from tests.launching import events_of, last_checkpoint, wait_for, wait_for_checkpoint

pytestmark = [pytest.mark.integration, pytest.mark.soak]

# Two epochs of 12 steps: 32 pairs of 6 patches, 16 per step.
_LONGER = ("--set", "data.synthetic.pairs=64")
# Its loss needs the descriptors of both ranks, and its checkpoints hold averaged weights.
_GLOBAL = tuple(
    word
    for field in (
        "objective=contrastive",
        "normalisation=modality",
        "flips=true",
        "scene_run=4",
        "average=0.9",
    )
    for word in ("--set", f"train.{field}")
)
_STEPS = 24
_SEED, _KILLS = 20261123, 3


def end_of(run: RunDirectory) -> dict[str, Any]:
    """Checksums of the last checkpoint's files, and the rate of its weights."""
    state = json.loads((last_checkpoint(run, _STEPS) / "state.json").read_text())
    return {**weights(run, _STEPS), "fpr95": state["metrics"]["fpr95"]}


@pytest.fixture(scope="module")
def longer(ray_cluster: RayCluster, storage: Path) -> RunDirectory:
    """The run without faults."""
    process, run = launch(ray_cluster, storage, "longer", *_LONGER)
    succeeded(process)
    return run


def kill_a_rank_after(run: RunDirectory, generation: int, step: int, rank: int) -> None:
    """Kill it in this generation, as soon as a checkpoint of this step or a later one exists."""
    wait_for(run, GroupStarted, lambda group: group.generation == generation)
    wait_for_checkpoint(run, step)
    newest = [joined.pid for joined in events_of(run, RankJoined) if joined.rank == rank][-1]
    os.kill(newest, signal.SIGKILL)


def random_kills() -> list[tuple[int, int]]:
    """Steps, ascending, none of them the end of an epoch, and the rank that is killed after each."""
    chosen = random.Random(_SEED)
    steps = sorted(chosen.sample([step for step in range(3, _STEPS - 3) if step % 12], _KILLS))
    return [(step, chosen.randrange(2)) for step in steps]


def test_a_run_killed_at_random_steps_ends_with_the_same_bytes(
    ray_cluster: RayCluster, longer: RunDirectory, storage: Path
) -> None:
    process, run = launch(ray_cluster, storage, "restarted", *_LONGER)
    for generation, (step, rank) in enumerate(random_kills(), start=1):
        kill_a_rank_after(run, generation, step, rank)
    succeeded(process)
    assert [event.kind for event in events_of(run, FailureDetected)] == ["rank_crashed"] * _KILLS
    assert any(event.step % 12 for event in events_of(run, Resumed))  # in the middle of an epoch
    assert end_of(run) == end_of(longer)


def test_a_contrastive_run_without_retries_is_launched_again_and_ends_with_the_same_bytes(
    ray_cluster: RayCluster, storage: Path
) -> None:
    process, whole = launch(ray_cluster, storage, "whole", *_LONGER, *_GLOBAL)
    succeeded(process)
    options = (*_LONGER, *_GLOBAL, "--set", "recovery.max_failures=0")
    for generation, (step, rank) in enumerate(random_kills()[:2], start=1):
        process, run = launch(ray_cluster, storage, "by-hand", *options)
        kill_a_rank_after(run, generation, step, rank)
        output, _ = process.communicate()
        assert process.returncode == 1 and "above recovery.max_failures 0" in output
    process, run = launch(ray_cluster, storage, "by-hand", *options)
    succeeded(process)
    assert not events_of(run, GroupRestarting) and len(events_of(run, Resumed)) == 2
    assert end_of(run) == end_of(whole)
