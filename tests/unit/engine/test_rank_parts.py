"""What runs in a rank, without Ray: when to save, saving behind the loop, leaving together, restoring together."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engine.checkpoints import CheckpointsLost, checkpoint_names, newest_valid, write_checkpoint
from orchestrator.engine.control.failures import FailureKind, RankFailed, TrainingDiverged
from orchestrator.engine.messages import GroupInfo, Notice, NoticeKind
from orchestrator.engine.rank import saver as saver_module
from orchestrator.engine.rank.leave import Agreement, Leaving
from orchestrator.engine.rank.link import RankLink, open_link, read_heartbeat
from orchestrator.engine.rank.restore import choose_and_read
from orchestrator.engine.rank.run import RankSettings, run_rank
from orchestrator.engine.rank.saver import CheckpointNotSaved, Saver, SaveTimes
from orchestrator.engine.session import HostIsDrained, LaunchEnds, Session, get_session
from orchestrator.engine.state_format import NpzFormat, State
from orchestrator.errors import InputError
from orchestrator.storage import Lease, StorageUnavailable
from orchestrator.storage.host_cache import HostCache
from orchestrator.storage.lease import Owner
from tests.unit.engine.fakes import MemoryStorage, Recorder

FORMAT = NpzFormat()


class Hand:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def saver_of(
    storage: MemoryStorage,
    *,
    has_earlier: bool = False,
    every_s: float | None = 0.0,
    record: Recorder | None = None,
) -> Saver:
    return Saver(
        storage,
        FORMAT,
        keep=2,
        best=None,
        times=SaveTimes(every_s, 0, 0.0),
        record=record or Recorder(),
        on_saved=lambda name: None,
        has_earlier=has_earlier,
    )


@pytest.fixture(autouse=True)
def no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saver_module, "_RETRY_AFTER_S", ())


def weights(step: int) -> Callable[[], State]:
    return lambda: {"weight": np.full(2, step)}


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
    with pytest.raises(InputError, match="neither arrays nor JSON"):
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


def test_storage_that_is_away_while_restoring_is_retried_and_then_named() -> None:
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


def session_of(
    storage: MemoryStorage, notice: Notice | None = None, record: Recorder | None = None
) -> tuple[Session, RankLink, Saver]:
    link = RankLink(GroupInfo(group="g"), 0)
    saver = saver_of(storage, every_s=1e9)
    leaving = Leaving(0, lambda: notice, lambda agreement: agreement)  # type: ignore[arg-type, return-value]
    session = Session(
        rank=0, world_size=1, local_rank=0, link=link, restored=None, saver=saver, leaving=leaving,
        barrier=lambda: None, record=record or Recorder(), cache=None, cached=False,
    )  # fmt: skip
    return session, link, saver


def test_the_last_state_is_saved_when_the_function_returns() -> None:
    storage = MemoryStorage()
    session, link, _ = session_of(storage)
    for step in (1, 2, 3):
        session.step(step, state=weights(step), metrics={"loss": 0.5})
    session.finish()
    session.close()
    assert checkpoint_names(storage) == ["step_00000003"]
    assert link.heartbeat().phase == "finished" and link.heartbeat().steps_reported


@pytest.mark.parametrize(
    ("kind", "error"), [(NoticeKind.DRAIN, HostIsDrained), (NoticeKind.STOP, LaunchEnds)]
)
def test_a_notice_saves_before_the_rank_leaves(kind: NoticeKind, error: type[Exception]) -> None:
    storage = MemoryStorage()
    session, _, _ = session_of(storage, Notice(kind, (0,)))
    with pytest.raises(error, match="step 1"):
        session.step(1, state=weights(1))
    session.close()
    assert checkpoint_names(storage) == ["step_00000001"]


def test_a_loss_that_is_not_finite_names_its_step_and_is_never_saved() -> None:
    storage = MemoryStorage()
    session, _, _ = session_of(storage)
    session.step(1, state=weights(1), metrics={"loss": 1.0})
    with pytest.raises(TrainingDiverged, match="step 2"):
        session.step(2, state=weights(2), metrics={"loss": float("nan")}, save=True)
    session.close()
    assert checkpoint_names(storage) == []


def test_steps_that_go_backwards_are_refused() -> None:
    session, _, _ = session_of(MemoryStorage())
    session.step(5, state=weights(5))
    with pytest.raises(InputError, match=r"session.step\(4\) comes after step 5"):
        session.step(4, state=weights(4))
    session.close()


def test_the_session_is_known_in_the_training_thread_only() -> None:
    with pytest.raises(InputError, match="outside of a training function"):
        get_session()


def test_links_of_two_groups_in_one_process_are_apart() -> None:
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
