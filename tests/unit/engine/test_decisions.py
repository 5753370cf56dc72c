"""The controller's decisions are pure: failures, heartbeats and times in; a verdict, a hang or an interval out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engine.control.failures import EndedEarly, Failure, FailureKind
from orchestrator.engine.control.hang import (
    PHASE_ALLOWANCE_S,
    STEP_TIMEOUT_FLOOR_S,
    RankPulse,
    find_hang,
    find_stragglers,
    refuse_early_end,
    step_timeout_s,
)
from orchestrator.engine.control.policy import Decision, decide
from orchestrator.engine.rank.interval import (
    ASSUMED_BETWEEN_FAILURES_S,
    MOST_STALL,
    between_failures_s,
    checkpoint_interval_s,
)
from orchestrator.telemetry.state import Attempt

KINDS = st.sampled_from(FailureKind)


def failure(kind: FailureKind) -> Failure:
    return Failure(kind, 1, "detail")


def attempt(kind: FailureKind, step: int) -> Attempt:
    return Attempt(kind=kind.value, step=step)


@pytest.mark.parametrize("kind", [FailureKind.LOSS_NOT_FINITE, FailureKind.REFUSED, FailureKind.PATH_BLOCKED])
def test_what_a_person_must_correct_is_never_retried(kind: FailureKind) -> None:
    assert decide(failure(kind), 7, [], 10).decision is Decision.STOP


def test_an_exception_at_the_same_step_twice_stops_and_at_another_step_does_not() -> None:
    bug = failure(FailureKind.STEP_FAILED)
    assert decide(bug, 7, [], 10).decision is Decision.RESUME
    assert decide(bug, 7, [attempt(FailureKind.STEP_FAILED, 7)], 10).decision is Decision.STOP
    assert decide(bug, 9, [attempt(FailureKind.STEP_FAILED, 7)], 10).decision is Decision.RESUME


@given(st.lists(KINDS, max_size=30), st.integers(0, 10))
def test_each_kind_has_its_own_budget(past: list[FailureKind], budget: int) -> None:
    history = [attempt(kind, step) for step, kind in enumerate(past)]
    verdict = decide(failure(FailureKind.HOST_LOST), 100, history, budget)
    spent = past.count(FailureKind.HOST_LOST)
    assert (verdict.decision is Decision.RESUME) == (spent < budget)
    assert decide(failure(FailureKind.PREEMPTED), 100, history, budget).decision is Decision.RESUME


def test_the_interval_is_youngs_and_dalys() -> None:
    assert checkpoint_interval_s(0.5, 3600) == pytest.approx(60.0)
    assert checkpoint_interval_s(0, 3600) == 0


@given(st.floats(0, 1e4), st.floats(1, 1e9))
def test_saving_never_stalls_more_than_its_share(cost_s: float, between_s: float) -> None:
    interval = checkpoint_interval_s(cost_s, between_s)
    assert cost_s <= MOST_STALL * interval * (1 + 1e-9)


@given(st.integers(0, 1000), st.floats(0, 1e8))
def test_the_time_between_failures_moves_from_what_was_assumed_to_what_is_seen(
    failures: int, trained_s: float
) -> None:
    expected = between_failures_s(failures, trained_s)
    assert between_failures_s(0, 0) == ASSUMED_BETWEEN_FAILURES_S
    assert between_failures_s(failures + 1, trained_s) < expected
    assert between_failures_s(failures, trained_s + 1) >= expected
    if failures:
        seen = trained_s / failures
        low, high = sorted((seen, ASSUMED_BETWEEN_FAILURES_S))
        assert low * (1 - 1e-9) <= expected <= high * (1 + 1e-9)
        many = between_failures_s(failures * 1000, trained_s * 1000)
        assert abs(many - seen) <= abs(expected - seen) + 1e-9


@given(st.floats(0, 1e4), st.integers(0, 1000), st.floats(0, 1e8))
def test_a_run_that_fails_often_saves_more_often_and_still_stalls_no_more_than_its_share(
    cost_s: float, failures: int, trained_s: float
) -> None:
    often = checkpoint_interval_s(cost_s, between_failures_s(failures + 1, trained_s))
    assert often <= checkpoint_interval_s(cost_s, between_failures_s(failures, trained_s))
    assert cost_s <= MOST_STALL * often * (1 + 1e-9)


def pulse(step: int, since_s: float, phase: str = "stepping", silent_s: float = 0.0) -> RankPulse:
    return RankPulse(phase, step, since_s, silent_s)


def test_the_rank_behind_is_named_and_not_those_that_wait_for_it() -> None:
    hang = find_hang({0: pulse(8, 31), 1: pulse(7, 33), 2: pulse(8, 31)}, 30)
    assert hang is not None and hang.ranks == (1,) and hang.step == 7


def test_a_rank_that_does_not_answer_is_the_one_that_hangs() -> None:
    hang = find_hang({0: pulse(8, 31), 1: pulse(8, 1, silent_s=40)}, 30)
    assert hang is not None and hang.ranks == (1,)


@pytest.mark.parametrize("phase", sorted(PHASE_ALLOWANCE_S))
def test_no_alarm_during_a_long_phase(phase: str) -> None:
    allowed = PHASE_ALLOWANCE_S[phase]
    assert find_hang({0: pulse(8, allowed - 1), 1: pulse(7, allowed - 1, phase)}, 30) is None
    assert find_hang({0: pulse(8, allowed + 1), 1: pulse(7, allowed + 1, phase)}, 30) is not None


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 29)), min_size=1, max_size=8))
def test_a_group_in_which_something_moved_lately_does_not_hang(ranks: list[tuple[int, float]]) -> None:
    assert find_hang({rank: pulse(step, since) for rank, (step, since) in enumerate(ranks)}, 30) is None


def test_finished_ranks_cause_no_alarm() -> None:
    assert find_hang({0: pulse(9, 500, "finished"), 1: pulse(9, 500, "finished")}, 30) is None


def test_a_rank_that_returned_before_a_step_of_another_is_named_at_once() -> None:
    refuse_early_end({0: 9, 1: 9, 2: 8}, [0, 1])  # rank 2 may still be behind
    with pytest.raises(EndedEarly, match=r"rank\(s\) \[1, 2\] after step 3, and other ranks are at step 9"):
        refuse_early_end({0: 9, 1: 3, 2: 4}, [1, 2])


def test_the_step_timeout_follows_the_measured_steps_above_a_floor() -> None:
    assert step_timeout_s([0.1, 0.2, 90.0]) == STEP_TIMEOUT_FLOOR_S
    assert step_timeout_s([5.0, 6.0, 7.0]) == 60.0
    assert step_timeout_s([]) == PHASE_ALLOWANCE_S["compiling"]


def test_a_straggler_is_a_rank_much_slower_than_the_others() -> None:
    assert find_stragglers({0: 1.0, 1: 1.1, 2: 2.2}) == {2: pytest.approx(2.0)}
    assert find_stragglers({0: 1.0}) == {}
    assert find_stragglers({0: 1.0, 1: 3.0}) == {1: 3.0}
    assert find_stragglers({0: 1.0, 1: 1.9}) == {}
