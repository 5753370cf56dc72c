"""What a training function calls in a rank: each step is a heartbeat, a save point and a point to leave."""

from typing import Any

import numpy as np
import pytest

from orchestrator.engine.checkpoints import checkpoint_names, read_checkpoint
from orchestrator.engine.control.failures import TrainingDiverged
from orchestrator.engine.messages import GroupInfo, Notice, NoticeKind
from orchestrator.engine.rank.leave import Leaving
from orchestrator.engine.rank.link import RankLink
from orchestrator.engine.rank.saver import Saver
from orchestrator.engine.session import HostIsDrained, LaunchEnds, Session, get_session
from orchestrator.errors import InputError
from tests.unit.engine.fakes import MemoryStorage, Recorder
from tests.unit.engine.savers import saver_of, weights


def session_of(
    storage: MemoryStorage,
    notice: Notice | None = None,
    record: Recorder | None = None,
    *,
    restore: bool = True,
) -> tuple[Session, RankLink, Saver]:
    link = RankLink(GroupInfo(group="g"), 0)
    saver = saver_of(storage, every_s=1e9)
    leaving = Leaving(0, lambda: notice, lambda agreement: agreement)  # type: ignore[arg-type, return-value]
    session = Session(
        rank=0, world_size=1, local_rank=0, link=link, restored=None, saver=saver, leaving=leaving,
        barrier=lambda: None, record=record or Recorder(), cache=None, cached=False,
    )  # fmt: skip
    if restore:
        session.restore(lambda state: None)
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


def test_what_cannot_load_a_state_is_refused_also_when_there_is_no_checkpoint() -> None:
    session, _, _ = session_of(MemoryStorage(), restore=False)
    not_a_function: Any = None
    with pytest.raises(
        InputError, match="session.restore got a NoneType; pass the function that loads a state"
    ):
        session.restore(not_a_function)
    session.close()


@pytest.mark.parametrize(
    ("step", "state", "metrics", "message"),
    [
        (1.0, dict, {}, r"session.step\(1.0\) is not a whole number"),
        ("1", dict, {}, r"session.step\('1'\) is not a whole number"),
        (True, dict, {}, r"session.step\(True\) is not a whole number"),
        (1, {"weight": np.zeros(2)}, {}, "got a dict as state; pass the function that returns it"),
        (1, dict, [("loss", 1.0)], "metrics is a list; give a dictionary"),
        (1, dict, {1: 1.0}, "metrics has the key 1; use text"),
        (1, dict, {"loss": "0.5"}, "metric 'loss' is '0.5'; give one number"),
        (1, dict, {"loss": None}, "metric 'loss' is None; give one number"),
        (1, dict, {"loss": np.zeros(2)}, r"metric 'loss' is array\(\[0., 0.\]\); give one number"),
        (1, dict, {"loss": 10**400}, "metric 'loss' is 1000.*; give one number"),
    ],
)
def test_a_wrong_argument_of_a_step_is_named(step: Any, state: Any, metrics: Any, message: str) -> None:
    session, _, _ = session_of(MemoryStorage())
    with pytest.raises(InputError, match=message):
        session.step(step, state=state, metrics=metrics)
    session.close()


def test_numbers_of_numpy_are_steps_and_metrics() -> None:
    storage = MemoryStorage()
    session, _, _ = session_of(storage)
    step: Any = np.int64(3)
    metrics: Any = {"loss": np.float32(0.5), "rate": np.array(0.25), "epoch": 2}
    session.step(step, state=weights(3), metrics=metrics, save=True)
    session.finish()
    session.close()
    read = read_checkpoint(storage, "step_00000003")
    assert read.metrics == {"loss": 0.5, "rate": 0.25, "epoch": 2}


def test_a_loop_that_does_not_restore_first_is_refused() -> None:
    session, _, _ = session_of(MemoryStorage(), restore=False)
    with pytest.raises(InputError, match=r"session.step\(1\) was called before session.restore"):
        session.step(1, state=weights(1))
    session.close()


def test_a_second_restore_is_refused_as_it_would_say_that_nothing_is_done() -> None:
    session, _, _ = session_of(MemoryStorage())
    with pytest.raises(InputError, match="session.restore was called twice"):
        session.restore(lambda state: None)
    session.close()


def test_an_unknown_phase_is_refused_as_it_would_count_as_a_hang() -> None:
    session, link, _ = session_of(MemoryStorage())
    unknown: Any = "testing"
    message = r"session.phase\('testing'\) is unknown; use one of evaluating, saving, compiling"
    with pytest.raises(InputError, match=message), session.phase(unknown):
        pass
    with session.phase("evaluating"):
        assert link.heartbeat().phase == "evaluating"
    session.close()
