"""An error that Ray Train reports becomes one failure with its kind, by type and by Ray's own record of a death."""

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, NodeDiedError, OutOfMemoryError
from ray.train import ControllerError, WorkerGroupError

from orchestrator.engine.control.failures import (
    FailureKind,
    GroupHangs,
    RankFailed,
    RanksStillRun,
    RendezvousFailed,
    SchedulerLost,
)
from orchestrator.engine.control.ports import LaunchStopped
from orchestrator.engine.ray_train import classify as door
from orchestrator.engine.ray_train.classify import (
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
    classify,
    is_stop,
)
from orchestrator.engine.ray_train.ray_core import Death
from orchestrator.errors import InputError
from orchestrator.storage import RunLost, StorageMisused, StorageUnavailable


@pytest.fixture(autouse=True)
def ray_has_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's table of actors has no record of these tests' actors."""
    monkeypatch.setattr(door, "why_it_died", lambda error: Death.OTHER)


def dead(error: Exception) -> WorkerHealthCheckFailedError:
    return WorkerHealthCheckFailedError("a worker did not answer", error)


def of_ranks(**errors: Exception) -> WorkerGroupError:
    return WorkerGroupError("ranks failed", {int(rank[1:]): error for rank, error in errors.items()})


def test_a_dead_worker_is_a_crashed_rank_and_the_errors_of_the_others_follow_from_it() -> None:
    waiting = RankFailed(FailureKind.STEP_FAILED, "RuntimeError: AllReduce failed", 7, 0)
    found = classify(of_ranks(r0=waiting, r1=dead(ActorDiedError())))
    assert (found.kind, found.rank) == (FailureKind.RANK_CRASHED, 1)


def test_a_rank_sorts_its_own_error_and_names_its_step() -> None:
    found = classify(of_ranks(r0=RankFailed(FailureKind.STEP_FAILED, "ValueError: shape", 3, 0)))
    assert (found.kind, found.rank, found.step, found.detail) == (
        FailureKind.STEP_FAILED, 0, 3, "ValueError: shape",
    )  # fmt: skip


def test_a_loss_that_is_not_finite_is_the_cause_whatever_else_died() -> None:
    diverged = RankFailed(FailureKind.LOSS_NOT_FINITE, "the loss is not finite at step 7", 7, 1)
    found = classify(of_ranks(r0=dead(ActorDiedError()), r1=diverged))
    assert (found.kind, found.rank) == (FailureKind.LOSS_NOT_FINITE, 1)


def test_a_group_that_leaves_a_drained_host_was_preempted_whichever_rank_reports_it() -> None:
    left = RankFailed(FailureKind.PREEMPTED, "the host of rank 1 is being drained", 9, 1)
    found = classify(of_ranks(r0=left, r1=left))
    assert (found.kind, found.rank) == (FailureKind.PREEMPTED, 1)


def test_a_rank_that_died_with_its_drained_host_was_preempted() -> None:
    died = ActorDiedError()
    died._preempted = True  # as Ray marks it
    found = classify(
        of_ranks(r0=RankFailed(FailureKind.STEP_FAILED, "AllReduce failed", 3, 0), r1=dead(died))
    )
    assert (found.kind, found.rank) == (FailureKind.PREEMPTED, 1)


def test_the_checkpoint_that_a_rank_could_not_read_is_named() -> None:
    unread = RankFailed(
        FailureKind.CORRUPT_CHECKPOINT, "rank 1 could not read it", 0, 1, checkpoint="step_00000008"
    )
    found = classify(of_ranks(r1=unread))
    assert (found.kind, found.checkpoint) == (FailureKind.CORRUPT_CHECKPOINT, "step_00000008")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ActorUnavailableError("connection reset", b"x" * 16), FailureKind.RANK_UNREACHABLE),
        (NodeDiedError("10.0.0.2"), FailureKind.HOST_LOST),
        (OutOfMemoryError("the memory monitor killed it"), FailureKind.OUT_OF_MEMORY),
        (WorkerHealthCheckTimeoutError("no answer"), FailureKind.HANG),
    ],
    ids=lambda value: value.value if isinstance(value, FailureKind) else type(value).__name__,
)
def test_each_way_in_which_ray_loses_a_worker_has_its_kind(error: Exception, kind: FailureKind) -> None:
    assert classify(of_ranks(r0=dead(error))).kind is kind


@pytest.mark.parametrize(
    ("error", "kind", "rank"),
    [
        (GroupHangs(1, (1,), 8, 31.0), FailureKind.HANG, 1),
        (SchedulerLost(0, "10.0.0.1"), FailureKind.SCHEDULER_LOST, 0),
        (RanksStillRun((3,), ("a",)), FailureKind.START_FAILED, None),
        (RendezvousFailed(1, "Failed to fetch the address"), FailureKind.START_FAILED, None),
        (WorkerGroupStartupTimeoutError(2), FailureKind.START_FAILED, None),
        (WorkerGroupStartupFailedError("a worker died"), FailureKind.START_FAILED, None),
        (InputError("NPU 3 of 10.0.0.2 cannot be used"), FailureKind.REFUSED, None),
        (StorageUnavailable("x", "Input/output error"), FailureKind.STORAGE, None),
        (StorageMisused("x", "Is a directory"), FailureKind.PATH_BLOCKED, None),
        (KeyError("a bug of the controller"), FailureKind.CONTROLLER, None),
    ],
    ids=lambda value: value.value if isinstance(value, FailureKind) else type(value).__name__,
)
def test_each_error_of_the_controller_has_its_kind(
    error: Exception, kind: FailureKind, rank: int | None
) -> None:
    found = classify(ControllerError(error))
    assert (found.kind, found.rank) == (kind, rank)


def test_an_error_of_the_training_function_is_never_taken_for_one_of_storage() -> None:
    own = RankFailed(FailureKind.STEP_FAILED, "FileNotFoundError: words.txt", 0, 0)
    assert classify(of_ranks(r0=own)).kind is FailureKind.STEP_FAILED


def test_a_launch_that_was_asked_to_stop_is_no_failure() -> None:
    assert is_stop(ControllerError(LaunchStopped()))
    assert not is_stop(ControllerError(KeyError("x")))


def test_a_lost_run_is_the_cause_whatever_the_new_owner_killed() -> None:
    lost = RankFailed(FailureKind.RUN_LOST, "lost the run /runs/j to process 4 on h7", 3, 0)
    found = classify(of_ranks(r0=lost, r1=dead(ActorDiedError())))
    assert found.kind is FailureKind.RUN_LOST
    assert classify(ControllerError(RunLost("/runs/j", "process 4 on h7"))).kind is FailureKind.RUN_LOST
