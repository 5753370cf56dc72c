"""Two training functions that are not SDNet, through every fault of one host, to the same bytes."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from orchestrator.engine.checkpoints import checkpoint_names
from orchestrator.storage import DirectoryStorage, ObjectMissing
from orchestrator.telemetry.event import Event
from orchestrator.telemetry.events import (
    CheckpointCorrupt,
    CheckpointSaved,
    FailureDetected,
    GroupStarted,
    HangFound,
    RankJoined,
    Resumed,
)
from orchestrator.telemetry.record import EventReader
from tests.integration.ray_node import RayCluster

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
STEPS = 300


class Run:
    """One run of an example."""

    def __init__(self, cluster: RayCluster, module: str, storage: Path, name: str):
        self.cluster, self.module, self.folder, self.name = cluster, module, storage, name
        self.root = storage / name
        self.root.mkdir(exist_ok=True)
        self.storage = DirectoryStorage(self.root)
        self.reader = EventReader(self.storage)
        self.seen: list[Event] = []

    def start(self) -> "subprocess.Popen[str]":
        script = Path(__file__).with_name("engine_run.py")
        return subprocess.Popen(
            [sys.executable, str(script), self.module, str(self.folder), self.name, str(STEPS)],
            env=self.cluster.environment,
            cwd=ROOT / "examples",  # Ray lets the ranks import from here
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def wait_for(self, wanted: Callable[[Event], bool]) -> Event:
        """The next event that is wanted, after those that earlier calls have seen."""
        pause = threading.Event()
        while True:
            new = [recorded.event for recorded in self.reader.new()]
            self.seen += new
            for event in new:
                if wanted(event):
                    return event
            pause.wait(0.1)

    def all(self, kind: type[Event]) -> list[Event]:
        return [r.event for r in EventReader(self.storage).read() if isinstance(r.event, kind)]

    def pids(self) -> dict[int, int]:
        """Processes of the newest generation."""
        joined = [event for event in self.all(RankJoined) if isinstance(event, RankJoined)]
        return {event.rank: event.pid for event in joined[-2:]}

    def last_bytes(self) -> bytes:
        return self.storage.get(f"checkpoints/{checkpoint_names(self.storage)[-1]}/arrays.npz")


def saved_past(step: int) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, CheckpointSaved) and event.step >= step


def succeeded(process: "subprocess.Popen[str]") -> None:
    output, _ = process.communicate()
    assert process.returncode == 0, output[-4000:]


def spoil_newest(storage: DirectoryStorage) -> str:
    name = checkpoint_names(storage)[-1]
    path = f"checkpoints/{name}/arrays.npz"
    content = bytearray(storage.get(path))
    content[len(content) // 2] ^= 1
    storage.put(path, bytes(content))
    return name


# The second example takes a minute more: `make soak` runs it.
@pytest.mark.parametrize(
    "module", ["digits_cluster", pytest.param("sequence_cluster", marks=pytest.mark.soak)]
)
def test_a_training_function_survives_a_killed_and_a_frozen_rank_a_killed_launcher_and_a_corrupt_checkpoint(
    ray_cluster: RayCluster, tmp_path: Path, module: str
) -> None:
    clean = Run(ray_cluster, module, tmp_path, "clean")
    succeeded(clean.start())

    run = Run(ray_cluster, module, tmp_path, "faulty")
    process = run.start()
    run.wait_for(saved_past(40))
    os.kill(run.pids()[1], signal.SIGKILL)
    run.wait_for(lambda event: isinstance(event, GroupStarted) and event.generation == 2)
    run.wait_for(saved_past(70))
    os.kill(run.pids()[1], signal.SIGSTOP)
    run.wait_for(lambda event: isinstance(event, GroupStarted) and event.generation == 3)
    run.wait_for(saved_past(100))
    left = [psutil.Process(pid) for pid in run.pids().values()]
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(left, timeout=60)
    assert not alive
    spoilt = spoil_newest(run.storage)
    succeeded(run.start())

    kinds = [
        (event.kind, event.rank) for event in run.all(FailureDetected) if isinstance(event, FailureDetected)
    ]
    assert kinds == [("rank_crashed", 1), ("hang", 1)]
    assert [event.ranks for event in run.all(HangFound) if isinstance(event, HangFound)] == [(1,)]
    assert [e.checkpoint for e in run.all(CheckpointCorrupt) if isinstance(e, CheckpointCorrupt)] == [spoilt]
    resumed = [event.checkpoint for event in run.all(Resumed) if isinstance(event, Resumed)]
    assert len(resumed) == 3 and resumed[-1] < spoilt
    assert run.storage.get("logs/stacks.2/rank_1.txt")
    assert run.last_bytes() == clean.last_bytes()
    merged = [json.loads(line)["event"] for line in run.storage.get("events.jsonl").splitlines()]
    assert merged.count("group_started") == 4
    with pytest.raises(ObjectMissing):
        run.storage.get("checkpoints/checkpoint_manager_snapshot.json")
