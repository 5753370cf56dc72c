"""A block owns its run: a thread renews the lease, and losing the run interrupts the block."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.storage import DirectoryStorage, RunIsOwned, RunLost, StorageUnavailable, owned
from orchestrator.storage.lease import LeaseTimes, Life, life_of
from tests.unit.engine.fakes import MemoryStorage

FAST = LeaseTimes(renew_every_s=0.02, timeout_s=30.0)


@pytest.fixture(autouse=True)
def pythons_own_handler() -> Iterator[None]:
    """MindSpore replaces the handler of SIGINT when it compiles, as other tests of this process do."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before or signal.default_int_handler)


class Watched(MemoryStorage):
    """Lets a test wait for heartbeats."""

    def __init__(self) -> None:
        super().__init__()
        self.beats = threading.Semaphore(0)

    def put(self, name: str, content: bytes) -> None:
        super().put(name, content)
        if name.endswith(".heartbeat"):
            self.beats.release()

    def wait_for_beats(self, count: int) -> None:
        for _ in range(count):
            assert self.beats.acquire(timeout=10)


def test_the_lease_is_renewed_while_the_block_lasts_and_released_at_its_end() -> None:
    storage = Watched()
    with owned(storage, FAST):
        storage.wait_for_beats(4)
        assert life_of(storage, 1, FAST) is Life.ALIVE
    assert life_of(storage, 1, FAST) is Life.ENDED


def test_two_blocks_of_one_directory_are_refused_and_the_next_one_follows(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)
    with (
        owned(storage),
        pytest.raises(RunIsOwned, match=f"^{tmp_path} is being run by process "),
        owned(storage),
    ):
        pass
    with owned(storage) as owning:
        assert owning.lease.number == 2


def test_a_block_that_loses_its_run_is_interrupted_and_names_the_new_owner() -> None:
    storage = Watched()
    owner = b'{"id": "x", "host": "h7", "pid": 4, "mark": "", "since": 0}'
    with (
        pytest.raises(RunLost, match=r"^lost the run memory to process 4 on h7 since "),
        owned(storage, FAST),
    ):
        storage.create("lease/000002", owner)
        threading.Event().wait(10)
    assert "lease/000002.heartbeat" not in storage.objects


def test_an_error_of_a_block_that_lost_its_run_becomes_the_loss() -> None:
    storage = MemoryStorage()
    with pytest.raises(RunLost) as lost, owned(storage, LeaseTimes(renew_every_s=60.0)):
        storage.create("lease/000002", b"")
        raise StorageUnavailable("state/000001.json", "Stale file handle")
    assert isinstance(lost.value.__cause__, StorageUnavailable)


def test_storage_that_fails_and_returns_costs_no_run(caplog: pytest.LogCaptureFixture) -> None:
    refused = threading.Semaphore(0)

    class Refusing(Watched):
        def list(self, prefix: str) -> list[str]:
            if self.away:
                refused.release()
            return super().list(prefix)

    storage = Refusing()
    with owned(storage, FAST) as owning:
        storage.away = True
        for _ in range(3):
            assert refused.acquire(timeout=10)
        storage.away = False
        storage.wait_for_beats(3)
        owning.check()
    assert sum("could not be renewed" in message for message in caplog.messages) == 1


def test_storage_that_never_returns_does_not_fail_the_end_of_a_block(
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = MemoryStorage()
    with owned(storage):
        storage.away = True
    assert any("could not be given back" in message for message in caplog.messages)
