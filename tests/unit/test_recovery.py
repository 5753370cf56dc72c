"""Decisions after failures are pure: sorted errors in, a verdict out."""

import copy
import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.recovery.failures import Failure, FailureKind, classify
from orchestrator.recovery.interval import (
    ASSUMED_BETWEEN_FAILURES_S,
    MOST_STALL,
    between_failures_s,
    checkpoint_interval_s,
    failures_and_training,
)
from orchestrator.recovery.policy import Decision, PastFailure, decide
from orchestrator.recovery.watchdog import (
    PHASE_ALLOWANCE_S,
    STEP_TIMEOUT_FLOOR_S,
    RankPulse,
    find_hang,
    find_stragglers,
    step_timeout_s,
)

KINDS = st.sampled_from(FailureKind)


class ActorDiedError(Exception):
    """Named as Ray's, which is what the classifier looks at."""

    preempted = False


# What Ray 2.60 says of an actor whose process got a SIGKILL, shortened.
RAYS_WORDS = (
    "The actor is dead because its worker process has died. (1) The process is killed by the OOM killer"
)


class WorkerHealthCheckFailedError(Exception):
    def __init__(self, message: str, health_check_failure: Exception):
        super().__init__(message)
        self.health_check_failure = health_check_failure


class NonFiniteLoss(Exception):
    pass


class InputError(ValueError):
    pass


class ControllerError(Exception):
    def __init__(self, controller_failure: Exception):
        super().__init__("Training failed due to controller error")
        self.controller_failure = controller_failure


class WorkerGroupError(Exception):
    def __init__(self, worker_failures: dict[int, Exception]):
        super().__init__("Training failed due to worker errors")
        self.worker_failures = worker_failures


class HostIsDrained(Exception):
    def __init__(self, rank: int):
        super().__init__(f"the host of rank {rank} is being drained")
        self.rank = rank


def failure(kind: FailureKind) -> Failure:
    return Failure(kind, 1, "detail")


def test_a_dead_worker_is_a_crashed_rank_and_the_others_errors_are_its_consequences() -> None:
    dead = WorkerHealthCheckFailedError("poll failed", ActorDiedError(RAYS_WORDS))
    found = classify(WorkerGroupError({0: RuntimeError("AllReduce failed"), 1: dead}))
    assert (found.kind, found.rank) == (FailureKind.RANK_CRASHED, 1)


def test_a_worker_whose_node_died_is_a_lost_host() -> None:
    dead = WorkerHealthCheckFailedError("poll failed", ActorDiedError("its node was terminated"))
    assert classify(WorkerGroupError({2: dead})).kind is FailureKind.HOST_LOST


def test_an_exception_of_our_own_step_is_not_taken_for_a_fault_of_the_cluster() -> None:
    found = classify(WorkerGroupError({0: ValueError("shape mismatch\ntraceback")}))
    assert (found.kind, found.rank, found.detail) == (FailureKind.STEP_FAILED, 0, "shape mismatch")


def test_a_loss_that_is_not_finite_is_the_cause_whatever_else_died() -> None:
    dead = WorkerHealthCheckFailedError("poll failed", ActorDiedError("gone"))
    found = classify(WorkerGroupError({0: dead, 1: NonFiniteLoss("the loss is nan at step 7")}))
    assert (found.kind, found.rank) == (FailureKind.LOSS_NOT_FINITE, 1)


def test_storage_that_a_rank_cannot_reach_is_no_bug_of_the_step() -> None:
    found = classify(WorkerGroupError({0: FileNotFoundError(2, "No such file or directory", "/mnt/run")}))
    assert (found.kind, found.rank) == (FailureKind.STORAGE, 0) and "/mnt/run" in found.detail


@pytest.mark.parametrize("name", ["ENOTDIR", "EISDIR", "EACCES", "EEXIST", "ELOOP", "ENAMETOOLONG", "EINVAL"])
def test_a_path_that_fails_however_long_one_waits_is_not_retried_as_storage(name: str) -> None:
    number = getattr(errno, name)
    error = RuntimeError("the checkpoint could not be written")
    error.__cause__ = OSError(number, os.strerror(number), "/runs/j/logs/rank_0.log")
    found = classify(WorkerGroupError({0: error}))
    assert found.kind is FailureKind.PATH_BLOCKED and "/runs/j/logs/rank_0.log" in found.detail
    verdict = decide(found, 7, [], 10)
    assert verdict.decision is Decision.STOP and "move away what lies at this path" in verdict.reason


@pytest.mark.parametrize("name", ["EIO", "ENOENT", "ESTALE", "ENOTCONN", "EPERM", "ENOSPC", "EROFS"])
def test_storage_that_may_come_back_is_waited_for(name: str) -> None:
    error = OSError(getattr(errno, name), name, "/runs/j/events.jsonl")
    assert classify(WorkerGroupError({0: error})).kind is FailureKind.STORAGE


def test_a_loss_that_is_not_finite_is_never_retried() -> None:
    assert decide(failure(FailureKind.LOSS_NOT_FINITE), 7, [], 10).decision is Decision.STOP


def test_what_the_user_must_correct_is_never_retried() -> None:
    found = classify(ControllerError(InputError("NPU 3 of 10.0.0.2 cannot be used")))
    assert (found.kind, found.detail) == (FailureKind.REFUSED, "NPU 3 of 10.0.0.2 cannot be used")
    assert decide(found, 0, [], 10).decision is Decision.STOP


def test_an_exception_at_the_same_step_twice_stops_and_at_another_step_does_not() -> None:
    bug = failure(FailureKind.STEP_FAILED)
    assert decide(bug, 7, [], 10).decision is Decision.RESUME
    assert decide(bug, 7, [PastFailure(FailureKind.STEP_FAILED, 7)], 10).decision is Decision.STOP
    assert decide(bug, 9, [PastFailure(FailureKind.STEP_FAILED, 7)], 10).decision is Decision.RESUME


def test_a_group_that_leaves_a_drained_host_was_preempted_whichever_rank_tells() -> None:
    found = classify(WorkerGroupError({0: HostIsDrained(1), 1: HostIsDrained(1)}))
    assert (found.kind, found.rank) == (FailureKind.PREEMPTED, 1)


def test_a_failure_is_at_the_step_that_its_rank_tells_also_when_it_is_copied() -> None:
    wrong = ArithmeticError("it does not add up")
    wrong.__dict__["step"] = 3
    assert classify(WorkerGroupError({0: copy.copy(wrong)})).step == 3
    assert classify(WorkerGroupError({0: ArithmeticError("it does not add up")})).step is None


def test_a_rank_that_died_with_its_drained_host_was_preempted() -> None:
    died = ActorDiedError(RAYS_WORDS)
    died.preempted = True  # as Ray marks it
    dead = WorkerHealthCheckFailedError("poll failed", died)
    found = classify(WorkerGroupError({0: RuntimeError("AllReduce failed"), 1: dead}))
    assert (found.kind, found.rank) == (FailureKind.PREEMPTED, 1)


@given(st.lists(KINDS, max_size=30), st.integers(0, 10))
def test_each_kind_has_its_own_budget(past: list[FailureKind], budget: int) -> None:
    history = [PastFailure(kind, step) for step, kind in enumerate(past)]
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


def test_failures_and_training_are_counted_from_the_events_of_all_launches() -> None:
    told = [
        (0, "run_started", {}),
        (10, "group_starting", {}),
        (20, "first_step", {}),
        (25, "progress", {}),
        (30, "failure_detected", {"kind": "rank_crashed"}),
        (31, "group_starting", {}),
        (40, "first_step", {}),
        (45, "progress", {}),  # and then the launcher was killed
        (9000, "run_started", {}),
        (9010, "group_starting", {}),
        (9020, "first_step", {}),
        (9050, "failure_detected", {"kind": "preempted"}),
    ]
    history = [{"t": t, "event": name, **fields} for t, name, fields in told]
    assert failures_and_training(history) == (1, 10 + 5 + 30)
    assert failures_and_training([]) == (0, 0)


def pulse(step: int, since_s: float, phase: str = "stepping", silent_s: float = 0.0) -> RankPulse:
    return RankPulse(phase, step, since_s, silent_s)


def test_the_rank_behind_is_named_and_not_those_that_wait_for_it() -> None:
    hang = find_hang({0: pulse(8, 31), 1: pulse(7, 33), 2: pulse(8, 31)}, 30)
    assert hang is not None and hang.ranks == (1,) and hang.step == 7


def test_a_rank_that_does_not_answer_is_the_one_that_hangs() -> None:
    hang = find_hang({0: pulse(8, 31), 1: pulse(8, 1, silent_s=40)}, 30)
    assert hang is not None and hang.ranks == (1,)


@pytest.mark.parametrize("phase", sorted(PHASE_ALLOWANCE_S))
def test_no_alarm_while_a_rank_does_what_takes_long(phase: str) -> None:
    allowed = PHASE_ALLOWANCE_S[phase]
    assert find_hang({0: pulse(8, allowed - 1), 1: pulse(7, allowed - 1, phase)}, 30) is None
    assert find_hang({0: pulse(8, allowed + 1), 1: pulse(7, allowed + 1, phase)}, 30) is not None


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 29)), min_size=1, max_size=8))
def test_a_group_in_which_something_moved_lately_does_not_hang(ranks: list[tuple[int, float]]) -> None:
    assert find_hang({rank: pulse(step, since) for rank, (step, since) in enumerate(ranks)}, 30) is None


def test_ranks_that_have_finished_are_not_waited_for() -> None:
    assert find_hang({0: pulse(9, 500, "finished"), 1: pulse(9, 500, "finished")}, 30) is None


def test_the_step_timeout_follows_the_measured_steps_above_a_floor() -> None:
    assert step_timeout_s([0.1, 0.2, 90.0]) == STEP_TIMEOUT_FLOOR_S
    assert step_timeout_s([5.0, 6.0, 7.0]) == 60.0
    assert step_timeout_s([]) == PHASE_ALLOWANCE_S["compiling"]


def test_a_straggler_is_a_rank_much_slower_than_the_others() -> None:
    assert find_stragglers({0: 1.0, 1: 1.1, 2: 2.2}) == {2: pytest.approx(2.0)}
    assert find_stragglers({0: 1.0}) == {}
    assert find_stragglers({0: 1.0, 1: 3.0}) == {1: 3.0}
    assert find_stragglers({0: 1.0, 1: 1.9}) == {}
