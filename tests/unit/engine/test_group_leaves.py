"""When the launch ends, every wait of the controller ends; ranks that compute save first."""

from collections.abc import Callable

import pytest

from orchestrator.engine.control.failures import (
    Failure,
    FailureKind,
)
from orchestrator.engine.control.policy import Decision
from orchestrator.engine.control.ports import LaunchStopped
from orchestrator.engine.messages import Heartbeat, NoticeKind
from tests.unit.engine.bench import STEPPING, Bench, bench


def waiting_for_storage(made: Bench) -> None:
    made.storage.away = True
    assert made.control.failed(Failure(FailureKind.STORAGE, 0, "EIO")) is Decision.STOP


def waiting_for_a_hosts_death(made: Bench) -> None:
    assert made.control.failed(Failure(FailureKind.RANK_UNREACHABLE, 0, "gone")) is Decision.STOP


def waiting_for_the_fence(made: Bench) -> None:
    made.control.ended()
    made.cluster.answer_s = 10.0
    with pytest.raises(LaunchStopped):
        made.control.starting(1)


def waiting_for_stacks(made: Bench) -> None:
    made.cluster.answer_s = 40.0
    made.ranks.all_beat(Heartbeat("stepping", 5, 5000.0, steps_reported=True))
    with pytest.raises(LaunchStopped):
        made.ticks(5)


@pytest.mark.parametrize(
    "phase",
    [waiting_for_storage, waiting_for_a_hosts_death, waiting_for_the_fence, waiting_for_stacks],
)
def test_a_launch_stops_within_a_second_in_every_phase(
    phase: Callable[[Bench], None],
) -> None:
    made = bench()
    made.start("h0")
    stopped_at = []

    def stop() -> None:
        stopped_at.append(made.clock.now())
        assert made.control.leave() is False
        made.clock.stop()

    made.clock.at(7.0, stop)
    phase(made)
    assert made.clock.now() - stopped_at[0] <= 1.0


def test_no_generation_starts_after_a_stop_request() -> None:
    made = bench()
    made.control.leave()
    with pytest.raises(LaunchStopped):
        made.control.starting(1)


def test_ranks_that_compute_are_asked_to_save_and_leave() -> None:
    made = bench()
    made.start("h0", "h1")
    made.ranks.all_beat(STEPPING)
    made.ticks(2)
    assert made.control.leave() is True
    assert [(notice.kind, notice.ranks) for notice in made.ranks.notices] == [(NoticeKind.STOP, (0, 1))]
    assert made.control.failed(Failure(FailureKind.RANK_CRASHED, 0, "killed")) is Decision.STOP


def test_a_step_that_is_newer_than_the_last_heartbeat_is_saved_when_the_launch_ends() -> None:
    made = bench()
    made.start("h0")
    made.ticks(2)
    made.ranks.all_beat(STEPPING)
    assert made.control.leave() is False and made.control.computes
    made.control.tick()  # asks at once, although no second has passed
    made.control.tick()
    assert made.control.leave() is True
    assert [notice.kind for notice in made.ranks.notices] == [NoticeKind.STOP]
