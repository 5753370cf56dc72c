"""Two real MindSpore ranks end with the same bytes, and so does one rank that does the work of both."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from orchestrator.engine.environment import process_environment

pytestmark = pytest.mark.integration

DRAWS_THE_START = """
import hashlib
from sdnet.parameters import weights
from sdnet.config import Recipe
from sdnet.network.model import SDNet
start = weights.initial(SDNet(Recipe(), training=True), 0)
print(f'"{hashlib.sha256(b"".join(value.tobytes() for value in start.values())).hexdigest()}"')
"""
ONE_RANK = Path(__file__).with_name("train_one_rank.py")
SCHEDULER = "import mindspore; mindspore.communication.init()"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(arguments: list[str], folder: Path, **environment: str) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )


def result(process: subprocess.Popen) -> dict[str, str]:
    output = process.communicate()[0]
    assert process.returncode == 0, output
    return json.loads(output.splitlines()[-1])


def group_of_two(data: Path, folder: Path, *arguments: str) -> list[dict[str, str]]:
    group = {"MS_WORKER_NUM": "2", "MS_SCHED_HOST": "127.0.0.1", "MS_SCHED_PORT": str(free_port())}
    processes = [start(["-c", SCHEDULER], folder, MS_ROLE="MS_SCHED", **group)]
    try:
        for rank in ("0", "1"):
            own = {"MS_ROLE": "MS_WORKER", "MS_NODE_ID": rank, "RANK_ID": rank}
            processes.append(start([str(ONE_RANK), rank, "2", str(data), *arguments], folder, **group, **own))
        return [result(process) for process in processes[1:]]
    finally:
        for process in processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (40, 64, 128), np.uint8)
    np.savez(tmp_path / "train.npz", images, np.ones(40, np.int32))
    return tmp_path / "train.npz"


def test_two_ranks_and_one_rank_with_both_slices_train_the_same_bytes(data: Path, tmp_path: Path):
    first, second = group_of_two(data, tmp_path, "published")
    assert first == second
    alone = result(start([str(ONE_RANK), "0", "1", str(data), "published"], tmp_path))
    assert alone == first


@pytest.mark.soak
def test_a_loss_of_the_global_batch_trains_the_same_bytes_on_two_ranks_on_one_and_on_first_two_then_one(
    data: Path, tmp_path: Path
):
    saved = str(tmp_path / "step_2")
    first, second = group_of_two(data, tmp_path, "contrastive", saved)
    assert first == second
    command = [str(ONE_RANK), "0", "1", str(data), "contrastive"]
    from_the_start, from_step_2 = start(command, tmp_path), start([*command, saved], tmp_path)
    assert [result(from_the_start), result(from_step_2)] == [first, first]


def test_a_rank_trains_the_same_bytes_however_many_cpus_its_host_has(data: Path, tmp_path: Path):
    mine = os.sched_getaffinity(0)
    if len(mine) == 1:
        pytest.skip("this host has one CPU: there is no smaller one to compare with")
    command = [str(ONE_RANK), "0", "1", str(data), "published"]
    try:
        os.sched_setaffinity(0, {min(mine)})  # which the process inherits
        on_small_host = start(command, tmp_path)
    finally:
        os.sched_setaffinity(0, mine)
    on_this_host = start(command, tmp_path)
    assert result(on_small_host) == result(on_this_host)


def test_training_starts_from_the_same_bytes_whatever_kernels_a_host_would_choose(tmp_path: Path):
    ours = process_environment(1, str(tmp_path))
    hosts = [{"OPENBLAS_CORETYPE": kernels} for kernels in ("Haswell", "Prescott", "SkylakeX")]
    starts = [start(["-c", DRAWS_THE_START], tmp_path, **{**host, **ours}) for host in hosts]
    assert len({result(process) for process in starts}) == 1
