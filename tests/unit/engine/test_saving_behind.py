"""How much work can be lost while storage is slow, by a virtual clock, and how much memory the waiting states need."""

import contextlib
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.engine.checkpoints import Encoded, checkpoint_names, newest_valid, write_checkpoint
from orchestrator.engine.rank import saver as saver_module
from orchestrator.engine.rank.saver import CheckpointNotSaved, Saver, SaveTimes
from orchestrator.engine.state_format import NpzFormat, State
from orchestrator.storage import DirectoryStorage, RunLost, Storage
from tests.unit.engine.fakes import MemoryStorage, Recorder


@pytest.fixture(autouse=True)
def no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saver_module, "_RETRY_AFTER_S", ())


class Throttled:
    """A storage on which each object takes `put_s` of virtual time; the saver's thread waits for that time."""

    def __init__(self, put_s: float, storage: Storage | None = None):
        self.storage = storage or MemoryStorage()
        self.put_s, self.now = put_s, 0.0
        self.busy_until: float | None = None
        self.changed = threading.Condition()

    def clock(self) -> float:
        return self.now

    def put(self, name: str, content: bytes) -> None:
        self._take_time()
        self.storage.put(name, content)

    def create(self, name: str, content: bytes) -> bool:
        self._take_time()
        return self.storage.create(name, content)

    def get(self, name: str) -> bytes:
        return self.storage.get(name)

    def get_range(self, name: str, start: int, size: int) -> bytes:
        return self.storage.get_range(name, start, size)

    def list(self, prefix: str) -> list[str]:
        return self.storage.list(prefix)

    def delete(self, name: str) -> None:
        self.storage.delete(name)

    def tidy(self, folder: str) -> None:
        self.storage.tidy(folder)

    def describe(self) -> str:
        return self.storage.describe()

    def _take_time(self) -> None:
        with self.changed:
            until = self.now + self.put_s
            self.busy_until = until
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: self.now >= until, 30)
            self.busy_until = None

    def pass_time(self, until: float, is_idle: Callable[[], bool]) -> None:
        """Let virtual time pass, with a stop at each point where the saver can continue."""
        with self.changed:
            while True:
                assert self.changed.wait_for(lambda: self.busy_until is not None or is_idle(), 30)
                if self.busy_until is None or self.busy_until > until:
                    break
                self.now, self.busy_until = self.busy_until, None
                self.changed.notify_all()
            self.now = until


def worst_loss(
    *, step_s: float, put_s: float, every_s: float | None, steps: int, where: Storage | None = None
) -> tuple[float, float]:
    """The most seconds of work that a kill at any step would have lost, and how long a save takes."""
    storage = Throttled(put_s, where)
    handed, durable = 0, 0

    def on_saved(name: str) -> None:
        nonlocal durable
        durable = int(name.partition("_")[2])
        with storage.changed:
            storage.changed.notify_all()

    times = SaveTimes(every_s, 0, 0.0, storage.clock)
    saver = Saver(
        storage, NpzFormat(), keep=2, best=None, times=times, record=Recorder(), on_saved=on_saved,
        has_earlier=True, clock=storage.clock,
    )  # fmt: skip

    def is_idle() -> bool:
        return durable == handed

    worst = 0
    for step in range(1, steps + 1):
        storage.pass_time(storage.now + step_s, is_idle)
        worst = max(worst, step - durable)
        if saver.due(step):
            handed = step
            saver.save(step, lambda: {"weight": np.zeros(2)}, {})
    storage.pass_time(storage.now + 10 * put_s, is_idle)
    saver.close()
    return worst * step_s, 2 * put_s  # one data object and state.json


@settings(deadline=None, max_examples=30)
@given(step_s=st.floats(0.05, 2.0), slowness=st.floats(0.0, 12.0), every_s=st.floats(0.0, 20.0))
def test_at_most_an_interval_and_two_saves_are_lost_on_slow_storage(
    step_s: float, slowness: float, every_s: float
) -> None:
    lost_s, save_s = worst_loss(step_s=step_s, put_s=slowness * step_s, every_s=every_s, steps=60)
    # A save begins after the one before it, with the newest state of that moment; steps cannot be cut.
    assert lost_s <= max(every_s, 4 * step_s) + 2 * save_s + 2 * step_s + 1e-6


def test_saving_after_every_step_in_a_slow_directory_loses_two_saves_and_not_a_growing_queue(
    tmp_path: Path,
) -> None:
    directory = DirectoryStorage(tmp_path)
    lost_s, save_s = worst_loss(step_s=1.0, put_s=3.0, every_s=0.0, steps=200, where=directory)
    assert save_s == 6.0 and lost_s <= 2 * save_s + 2.0
    name, encoded, corrupt = newest_valid(directory)
    assert name is not None and encoded is not None and encoded.step > 200 - 2 * save_s - 2 and not corrupt


def test_at_most_three_states_are_in_memory_while_storage_hangs() -> None:
    """One is being written, one waits, and one is being copied to replace it."""
    entered, release = threading.Event(), threading.Event()

    class Standing(MemoryStorage):
        def create(self, name: str, content: bytes) -> bool:
            entered.set()
            assert release.wait(30)
            return super().create(name, content)

    class Format(NpzFormat):
        def encode(self, state: State, step: int, metrics: object) -> Encoded:
            return super().encode({"weight": np.zeros(1)}, step, {})

    copies: weakref.WeakSet[Copy] = weakref.WeakSet()
    most = 0
    saver = Saver(
        Standing(), Format(), keep=2, best=None, times=SaveTimes(0.0, 0, 0.0), record=Recorder(),
        on_saved=lambda name: None, has_earlier=True,
    )  # fmt: skip
    for step in range(1, 50):

        def state() -> State:
            nonlocal most
            copy = Copy()
            copies.add(copy)
            most = max(most, len(copies))
            return copy

        saver.save(step, state, {})
        if step == 1:
            assert entered.wait(30)
    release.set()
    saver.flush()
    saver.close()
    assert most == 3


class Copy(dict[str, object]):
    """A state that can be counted."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def test_training_ends_when_storage_took_no_checkpoint_for_the_time_out() -> None:
    """With an earlier checkpoint it continues until then. A successful save restarts the time."""
    storage, clock, record = MemoryStorage(), [0.0], Recorder()
    saver = Saver(
        storage, NpzFormat(), keep=2, best=None, times=SaveTimes(0.0, 0, 0.0), record=record,
        on_saved=lambda name: None, has_earlier=True, storage_timeout_s=60.0, clock=lambda: clock[0],
    )  # fmt: skip

    def save(step: int) -> None:
        saver.save(step, lambda: {"weight": np.zeros(2)}, {})
        with contextlib.suppress(CheckpointNotSaved):
            saver.flush()

    for step, now, away in (
        (1, 0.0, True),
        (2, 59.0, True),
        (3, 61.0, False),
        (4, 70.0, True),
        (5, 129.0, True),
    ):
        clock[0], storage.away = now, away
        save(step)
        saver.due(step)
    clock[0] = 130.0
    save(6)
    with pytest.raises(CheckpointNotSaved, match="the checkpoint of step 6 could not be written"):
        saver.due(7)
    saver.close()
    assert record.names() == [*["checkpoint_failed"] * 2, "checkpoint_saved", *["checkpoint_failed"] * 3]


def test_a_saver_whose_launch_lost_the_run_stops_the_training_and_deletes_nothing() -> None:
    storage, owned = MemoryStorage(), [True]

    def check_owner() -> None:
        if not owned[0]:
            raise RunLost("/runs/j", "process 4 on h7")

    for step in (1, 2, 3):
        write_checkpoint(storage, NpzFormat().encode({"weight": np.zeros(2)}, step, {}))
    saver = Saver(
        storage, NpzFormat(), keep=1, best=None, times=SaveTimes(0.0, 0, 0.0), record=Recorder(),
        on_saved=lambda name: None, has_earlier=True, check_owner=check_owner,
    )  # fmt: skip
    owned[0] = False
    saver.save(4, lambda: {"weight": np.zeros(2)}, {})
    with pytest.raises(RunLost):
        saver.flush()
    saver.close()
    assert checkpoint_names(storage) == ["step_00000001", "step_00000002", "step_00000003"]
    assert newest_valid(storage)[0] == "step_00000003"
