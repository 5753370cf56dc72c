"""Classifies errors that Ray Train reports, by their type and by Ray's record of why an actor died."""

from ray.exceptions import (
    ActorUnavailableError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
)
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError

from orchestrator.engine.control.failures import (
    BLAME,
    Failure,
    FailureKind,
    GroupHangs,
    RankFailed,
    RanksDidNotJoin,
    RanksStillRun,
    RendezvousFailed,
    SchedulerLost,
)
from orchestrator.engine.control.ports import LaunchStopped
from orchestrator.engine.rank.scheduler import SchedulerDidNotStart
from orchestrator.engine.rank.store import StoreDidNotOpen
from orchestrator.engine.ray_train.ray_core import Death, why_it_died
from orchestrator.errors import InputError, headline
from orchestrator.storage import RunLost, StorageError, StorageMisused

_KINDS: tuple[tuple[type[BaseException], FailureKind], ...] = (
    (RunLost, FailureKind.RUN_LOST),
    (GroupHangs, FailureKind.HANG),
    (SchedulerLost, FailureKind.SCHEDULER_LOST),
    (RanksDidNotJoin, FailureKind.START_FAILED),
    (RanksStillRun, FailureKind.START_FAILED),
    (RendezvousFailed, FailureKind.START_FAILED),
    (SchedulerDidNotStart, FailureKind.START_FAILED),
    (StoreDidNotOpen, FailureKind.START_FAILED),
    (InputError, FailureKind.REFUSED),
    (StorageMisused, FailureKind.PATH_BLOCKED),
    (StorageError, FailureKind.STORAGE),
    (WorkerHealthCheckTimeoutError, FailureKind.HANG),
    (OutOfMemoryError, FailureKind.OUT_OF_MEMORY),
    (NodeDiedError, FailureKind.HOST_LOST),
    (ActorUnavailableError, FailureKind.RANK_UNREACHABLE),
    (WorkerCrashedError, FailureKind.RANK_CRASHED),
    (WorkerGroupStartupTimeoutError, FailureKind.START_FAILED),
)

_DEATHS = {
    Death.OUT_OF_MEMORY: FailureKind.OUT_OF_MEMORY,
    Death.NODE_DIED: FailureKind.HOST_LOST,
    Death.OTHER: FailureKind.RANK_CRASHED,
}


def is_stop(error: TrainingFailedError) -> bool:
    """Whether the error only means that the launcher must stop."""
    return isinstance(error, ControllerError) and isinstance(error.controller_failure, LaunchStopped)


def classify(error: TrainingFailedError) -> Failure:
    """The failure that caused the error of a group; errors of other ranks are its consequences."""
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        failures = [_of_rank(rank, cause) for rank, cause in sorted(error.worker_failures.items())]
        return min(failures, key=lambda failure: BLAME.index(failure.kind))
    cause = _innermost(error.controller_failure if isinstance(error, ControllerError) else error)
    if isinstance(cause, WorkerGroupStartupFailedError):
        dead = cause.__cause__
        kind = _of_dead_actor(dead) if isinstance(dead, RayActorError) else FailureKind.START_FAILED
        # A rank that dies before it trains is a failed start, unless its host was lost or ran out of memory.
        lost = kind in (FailureKind.HOST_LOST, FailureKind.PREEMPTED, FailureKind.OUT_OF_MEMORY)
        return Failure(kind if lost else FailureKind.START_FAILED, None, _line(cause))
    rank = cause.rank if isinstance(cause, GroupHangs | SchedulerLost) else None
    return Failure(_kind_of(cause) or FailureKind.CONTROLLER, rank, _line(cause))


def _of_rank(rank: int, error: BaseException) -> Failure:
    if isinstance(error, RankFailed):
        about = rank if error.rank is None else error.rank
        return Failure(error.kind, about, error.detail, error.step, error.checkpoint)
    cause = _innermost(
        error.health_check_failure if isinstance(error, WorkerHealthCheckFailedError) else error
    )
    return Failure(_kind_of(cause) or FailureKind.STEP_FAILED, rank, _line(cause))


def _kind_of(error: BaseException) -> FailureKind | None:
    kind = next((kind for known, kind in _KINDS if isinstance(error, known)), None)
    if kind is None and isinstance(error, RayActorError):
        return _of_dead_actor(error)
    return kind


def _of_dead_actor(error: RayActorError) -> FailureKind:
    if error.preempted:
        return FailureKind.PREEMPTED
    if isinstance(error, ActorUnavailableError):
        return FailureKind.RANK_UNREACHABLE
    return _DEATHS[why_it_died(error)]


def _innermost(error: BaseException) -> BaseException:
    """The error that a remote call raised, without Ray's wrapping."""
    while isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause
    return error


def _line(error: BaseException) -> str:
    """The first line of the error's message; Ray's messages continue with tracebacks."""
    return (headline(error) or type(error).__name__)[:300]
