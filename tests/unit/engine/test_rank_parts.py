"""What runs in a rank, without Ray: when to save, saving in the background, leaving together, restoring together."""

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engine.checkpoints import CheckpointsLost, checkpoint_names, newest_valid, write_checkpoint
from orchestrator.engine.control.failures import FailureKind, RankFailed
from orchestrator.engine.messages import GroupInfo, Notice, NoticeKind
from orchestrator.engine.rank import saver as saver_module
from orchestrator.engine.rank.leave import Agreement, Leaving
from orchestrator.engine.rank.link import open_link, read_heartbeat
from orchestrator.engine.rank.restore import choose_and_read
from orchestrator.engine.rank.run import RankSettings, run_rank
from orchestrator.engine.rank.saver import CheckpointNotSaved, SaveTimes
from orchestrator.errors import InputError
from orchestrator.storage import Lease, StorageUnavailable
from orchestrator.storage.host_cache import HostCache
from orchestrator.storage.lease import Owner
from tests.unit.engine.fakes import MemoryStorage, Recorder
from tests.unit.engine.savers import FORMAT, saver_of, weights


class Hand:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture(autouse=True)
def no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saver_module, "_RETRY_AFTER_S", ())


@given(step_s=st.floats(0.01, 100), every_s=st.floats(0, 1000))
def test_at_most_an_interval_of_work_is_unsaved_after_the_steps_that_measure_one(
    step_s: float, every_s: float
) -> None:
    clock = Hand()
    times = SaveTimes(every_s, 0, 0.0, clock)
    unsaved, most = 0, 0
    for step in range(1, 60):
        clock.seconds += step_s
        unsaved += 1
        most = max(most, unsaved)
        if times.due(step):
            times.saved()
            unsaved = 0
    # The first step of a process compiles, three more are watched, and a step cannot be cut.
    assert (most - 1) * step_s <= max(every_s, 4 * step_s) * (1 + 1e-6)


def test_a_newer_state_replaces_the_one_that_waits_for_slow_storage() -> None:
    entered, release = threading.Event(), threading.Event()

    class Slow(MemoryStorage):
        def put(self, name: str, content: bytes) -> None:
            entered.set()
            assert release.wait(10)
            super().put(name, content)

    storage = Slow()
    saver = saver_of(storage)
    saver.save(1, weights(1), {})
    assert entered.wait(10)
    for step in (2, 3, 4):
        saver.save(step, weights(step), {})
    release.set()
    saver.flush()
    saver.close()
    assert checkpoint_names(storage) == ["step_00000001", "step_00000004"]


def test_an_error_while_encoding_a_state_reaches_the_step_loop() -> None:
    saver = saver_of(MemoryStorage())
    saver.save(1, lambda: {"weight": object()}, {})
    with pytest.raises(InputError, match="neither an array nor a JSON value"):
        saver.flush()
    saver.close()


def test_a_refused_save_without_an_earlier_checkpoint_ends_training() -> None:
    storage = MemoryStorage()
    storage.away = True
    saver = saver_of(storage)
    saver.save(7, weights(7), {})
    with pytest.raises(CheckpointNotSaved, match="step 7 .*not connected"):
        saver.flush()
    saver.close()


def test_a_refused_save_after_an_earlier_checkpoint_is_reported_and_training_continues() -> None:
    storage, record = MemoryStorage(), Recorder()
    storage.away = True
    saver = saver_of(storage, has_earlier=True, record=record)
    saver.save(7, weights(7), {})
    with pytest.raises(CheckpointNotSaved, match="step 7 .*not connected"):  # as the last save of a group
        saver.flush()
    assert not saver.due(8)  # nothing was raised in the step loop
    storage.away = False
    saver.save(8, weights(8), {})
    saver.flush()
    saver.close()
    assert record.names() == ["checkpoint_failed", "checkpoint_saved"]
    assert newest_valid(storage)[0] == "step_00000008"


def group_of(size: int, notices: dict[int, Notice | None]) -> list[Leaving]:
    """Ranks whose broadcast hands over what rank 0 proposed; rank 0 must be asked first."""
    proposed: list[Agreement] = []

    def broadcast(agreement: Agreement | None) -> Agreement:
        if agreement is not None:
            proposed.append(agreement)
        return proposed[-1]

    return [Leaving(rank, lambda rank=rank: notices.get(rank), broadcast, Hand()) for rank in range(size)]  # type: ignore[misc]


def test_all_ranks_obey_a_notice_after_the_same_step_although_only_rank_0_has_it() -> None:
    drain = Notice(NoticeKind.DRAIN, (1,))
    notices: dict[int, Notice | None] = {}
    ranks = group_of(3, notices)
    obeyed: list[list[Notice | None]] = []
    for step in range(1, 200):
        if step == 40:
            notices[0] = drain
        obeyed.append([rank.agreed(step) for rank in ranks])
    assert all(len(set(answers)) == 1 for answers in obeyed)
    assert obeyed[0][0] is None and any(answers[0] == drain for answers in obeyed)


def test_a_notice_that_only_another_rank_has_is_not_obeyed_alone() -> None:
    ranks = group_of(2, {1: Notice(NoticeKind.STOP, (0, 1))})
    assert [[rank.agreed(step) for rank in ranks] for step in range(1, 50)] == [[None, None]] * 49


def restored_by(
    storage: MemoryStorage,
    rank: int,
    name: str | None,
    avoid: frozenset[str] = frozenset(),
    saved: str | None = None,
) -> object:
    return choose_and_read(
        storage,
        FORMAT,
        rank=rank,
        avoid=avoid,
        saved=saved,
        broadcast=lambda value: (value if rank == 0 else name) or "",
        record=Recorder(),
        wait=lambda seconds: None,
    )


def test_a_rank_that_cannot_read_the_chosen_checkpoint_names_it() -> None:
    storage = MemoryStorage()
    name = write_checkpoint(storage, FORMAT.encode({"w": np.zeros(2)}, 5, {}))
    storage.objects[f"checkpoints/{name}/arrays.npz"] = b"another host's stale copy"
    with pytest.raises(RankFailed) as caught:
        restored_by(storage, 1, name)
    failed = caught.value
    assert (failed.kind, failed.rank, failed.checkpoint) == (FailureKind.CORRUPT_CHECKPOINT, 1, name)


def test_a_run_that_lost_its_checkpoints_is_refused_and_a_new_run_begins() -> None:
    storage = MemoryStorage()
    assert restored_by(storage, 0, None) is None
    with pytest.raises(CheckpointsLost, match="although the run saved step_00000004"):
        restored_by(storage, 0, None, saved="step_00000004")


def test_unavailable_storage_is_retried_while_restoring_and_then_reported() -> None:
    class BackAfterTwo(MemoryStorage):
        tries = 2

        def get(self, name: str) -> bytes:
            self.tries += 1
            if self.tries <= 2:
                raise StorageUnavailable(name, "Stale file handle")
            return super().get(name)

    storage = BackAfterTwo()
    name = write_checkpoint(storage, FORMAT.encode({"w": np.zeros(2)}, 5, {}))
    storage.tries = 0
    assert restored_by(storage, 1, name) is not None


def test_links_of_two_groups_in_one_process_are_independent() -> None:
    first, second = open_link(GroupInfo(group="a#1"), 0), open_link(GroupInfo(group="b#1"), 1)
    first.beat("stepping", 5)
    assert (read_heartbeat("a#1").step, read_heartbeat("b#1").step, second.rank) == (5, 0, 1)


@pytest.mark.parametrize(
    ("folder", "kind"), [("logs", FailureKind.PATH_BLOCKED), ("away", FailureKind.STORAGE)]
)
def test_a_log_that_cannot_be_opened_is_not_the_training_functions_error(
    tmp_path: Path, folder: str, kind: FailureKind
) -> None:
    (tmp_path / "logs/rank_0.log").mkdir(parents=True)
    open_link(GroupInfo(group=f"{folder}#1"), 0)
    storage = MemoryStorage()
    settings = RankSettings(
        storage=storage, lease=Lease(storage, 1, Owner.this_process()), state_format=FORMAT,
        every_s=None, keep=1, best=None, logs=tmp_path / folder, compiled=None, compile_key="",
        cache=HostCache(), storage_timeout_s=300.0,
    )  # fmt: skip
    with pytest.raises(RankFailed) as failed:
        run_rank(lambda: None, settings)
    assert failed.value.kind is kind and f"{folder}/rank_0.log" in failed.value.detail
