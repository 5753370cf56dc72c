"""What a controller does when another launch takes its run."""

from collections.abc import Callable

import pytest

from orchestrator.engine.control.failures import (
    Failure,
    FailureKind,
)
from orchestrator.engine.control.generation import Phase
from orchestrator.engine.control.policy import Decision
from orchestrator.storage import RunLost
from tests.unit.engine.bench import STEPPING, Bench, bench
from tests.unit.engine.fakes import (
    members,
)


def start_next(made: Bench) -> None:
    made.control.ended()
    made.control.starting(1)


def begin_and_place(made: Bench) -> None:
    made.control.placed(members("h0"))


def compute(made: Bench) -> None:
    made.ticks(6)


@pytest.mark.parametrize("act", [start_next, begin_and_place, compute])
def test_a_group_whose_launch_lost_the_run_ends_and_leaves_the_state_alone(
    act: Callable[[Bench], None],
) -> None:
    made = bench()
    made.start("h0")
    made.ranks.all_beat(STEPPING)
    before, recorded = dict(made.storage.objects), made.record.names()
    made.lose_run()
    with pytest.raises(RunLost):
        act(made)
    assert made.control.failed(Failure(FailureKind.RUN_LOST, None, "lost")) is Decision.STOP
    made.control.ended()
    made.control.finished()
    assert made.storage.objects == before
    assert set(made.record.names()) - set(recorded) <= {"fenced", "workers_started"}


def test_ranks_that_the_new_owner_killed_are_no_reason_to_start_again() -> None:
    made = bench()
    made.start("h0")
    made.lose_run()
    assert made.control.failed(Failure(FailureKind.RANK_CRASHED, 0, "killed")) is Decision.STOP
    assert made.record.names()[-1] == "group_started"


def test_unavailable_storage_does_not_lose_the_run() -> None:
    made = bench()
    made.start("h0")
    made.unreachable = True
    made.ticks(12)
    made.unreachable = False
    made.ticks(1)
    assert made.control.generation.phase is Phase.RUNNING
