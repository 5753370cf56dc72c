"""`sdnet train` and a group of one rank train the same network, and each resumes the other's run."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.job.run_directory import RunDirectory
from orchestrator.telemetry.events import Resumed
from tests.integration.jobs import launch, succeeded
from tests.integration.ray_node import RayCluster, program
from tests.launching import checksums, events_of

pytestmark = [pytest.mark.integration, pytest.mark.soak]

# One epoch: 8 pairs of 6 patches, 8 per step.
EPOCH, END = 6, 12
ONE_RANK = (
    "--set", "cluster.workers=1", "--set", "checkpoint.every_s=3600", "--set", "checkpoint.keep=5",
)  # fmt: skip


def train_alone(data: Path, out: Path) -> RunDirectory:
    """`sdnet train` on one CPU, as a rank has it: the bytes depend on the number of threads."""
    cpu = min(os.sched_getaffinity(0))
    done = subprocess.run(
        [str(program("sdnet")), "train", "--data", str(data), "--out", str(out),
         "--recipe", "demo", "--epochs", "2", "--batch", "8"],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return RunDirectory(out)


def begin_with(first_epoch_of: RunDirectory, directory: Path) -> None:
    """A run directory with another run's checkpoint of its first epoch, and nothing else."""
    name = f"checkpoints/step_{EPOCH:08d}"
    shutil.copytree(first_epoch_of.root / name, directory / name)


def test_each_resumes_what_the_other_began_and_ends_with_the_same_bytes(
    ray_cluster: RayCluster, tmp_path: Path
) -> None:
    process, group = launch(ray_cluster, tmp_path, "group", *ONE_RANK)
    succeeded(process)
    alone = train_alone(group.data, tmp_path / "alone")
    assert checksums(alone, END) == checksums(group, END)

    begin_with(group, tmp_path / "alone-after-group")
    assert checksums(train_alone(group.data, tmp_path / "alone-after-group"), END) == checksums(group, END)

    begin_with(alone, tmp_path / "group-after-alone")
    process, resumed = launch(ray_cluster, tmp_path, "group-after-alone", *ONE_RANK)
    succeeded(process)
    assert [event.step for event in events_of(resumed, Resumed)] == [EPOCH]
    assert checksums(resumed, END) == checksums(group, END)
