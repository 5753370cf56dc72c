"""The storage contract on two mounts of a GlusterFS volume whose brick is killed and restarted."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from orchestrator.engine.checkpoints import newest_valid, write_checkpoint
from orchestrator.engine.state_format import NpzFormat
from orchestrator.storage import DirectoryStorage, Ownership, RunIsOwned, StorageError, StorageUnavailable
from orchestrator.storage.lease import take
from orchestrator.telemetry.events import Progress
from orchestrator.telemetry.record import EventReader, EventWriter
from tests.mounts.contract import creations_at_once, reads
from tests.mounts.gluster import Volume, volume, why_impossible
from tests.mounts.owners import elsewhere

pytestmark = [
    pytest.mark.mounts,
    pytest.mark.soak,
    pytest.mark.skipif(bool(why_impossible()), reason=why_impossible() or "-"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Volume]:
    with volume(tmp_path_factory.mktemp("gluster")) as found:
        yield found


@pytest.fixture
def storages(made: Volume, tmp_path: Path) -> tuple[DirectoryStorage, DirectoryStorage]:
    (made.first / tmp_path.name).mkdir()
    both = DirectoryStorage(made.first / tmp_path.name), DirectoryStorage(made.second / tmp_path.name)
    eventually(both[1].root.is_dir)
    return both


def answers(check: Callable[[], None]) -> bool:
    """Whether storage answers, and the condition is true."""
    check()
    return True


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until the condition is true; a storage failure is retried."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(StorageError):
            if holds():
                return
        time.sleep(0.1)
    raise AssertionError("the condition never became true")


def test_create_has_one_winner_and_another_host_reads_what_one_puts(storages) -> None:
    first, second = storages
    for number in range(20):
        assert creations_at_once(storages, f"lease_{number}") == [False, False, False, True]
        first.put("mutable", b"%d" % number)
        eventually(reads(second, "mutable", b"%d" % number))


def test_an_owner_keeps_its_run_when_the_brick_restarts_and_no_other_launch_gets_it(
    made: Volume, storages
) -> None:
    first, second = storages
    ownership = Ownership(take(first, elsewhere("first")))
    ownership.start()
    try:
        with EventWriter(first, guard=ownership.confirm) as writer:
            name = write_checkpoint(first, NpzFormat().encode({"weight": np.arange(9000)}, 1, {}))
            with made.brick_away():
                for step in range(100):
                    writer.record(Progress(step=step))
                with pytest.raises(StorageUnavailable):
                    take(second, elsewhere("second"))
            eventually(lambda: second.list("lease/") != [])
            with pytest.raises(RunIsOwned, match="process 1 on first since"):
                take(second, elsewhere("second"))
            eventually(lambda: answers(ownership.check))
            eventually(writer.flush)
        assert [entry.event for entry in EventReader(first).read()] == [
            Progress(step=step) for step in range(100)
        ]
        assert newest_valid(first)[0] == name
    finally:
        ownership.end()
    assert take(first, elsewhere("second")).number == 2
