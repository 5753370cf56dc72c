"""What failed: Ray's and our errors, sorted into kinds that a policy can decide on.

Only names and attributes of errors are looked at, so this module imports neither Ray nor
MindSpore and can be tested with plain objects.
"""

from dataclasses import dataclass
from enum import StrEnum

from sdnet.files import is_permanent


class FailureKind(StrEnum):
    """The cause, as far as it can be told from outside the process.

    rank_unreachable: the connection broke and Ray does not know yet whether the process or its
    host is gone; whoever can see the hosts' state makes it rank_crashed or host_lost.
    refused: what the user must correct, such as a group of devices that HCCL would not take.
    path_blocked: a file of the run fails in a way that waiting does not change, such as a folder in its
    place; storage that is away can look the same, so whoever can probe it makes it storage.
    """

    RANK_CRASHED = "rank_crashed"
    RANK_UNREACHABLE = "rank_unreachable"
    HOST_LOST = "host_lost"
    HANG = "hang"
    OUT_OF_MEMORY = "out_of_memory"
    SCHEDULER_LOST = "scheduler_lost"
    START_FAILED = "start_failed"
    PREEMPTED = "preempted"
    STEP_FAILED = "step_failed"
    LOSS_NOT_FINITE = "loss_not_finite"
    REFUSED = "refused"
    STORAGE = "storage"
    PATH_BLOCKED = "path_blocked"
    CONTROLLER = "controller"


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure: its kind, the rank it began with if one is to blame, and a line for people.

    step: the global steps that were done when it came, where the rank itself could tell.
    """

    kind: FailureKind
    rank: int | None
    detail: str
    step: int | None = None


# Names of error classes, ours and Ray's (2.60), met in the chain of causes.
_BY_NAME = {
    "NonFiniteLoss": FailureKind.LOSS_NOT_FINITE,
    "InputError": FailureKind.REFUSED,
    "CheckpointNotSaved": FailureKind.STORAGE,
    "GroupHangs": FailureKind.HANG,
    "SchedulerLost": FailureKind.SCHEDULER_LOST,
    "WorkerHealthCheckTimeoutError": FailureKind.HANG,
    "PreemptionError": FailureKind.PREEMPTED,
    "HostIsDrained": FailureKind.PREEMPTED,
    "OutOfMemoryError": FailureKind.OUT_OF_MEMORY,
    "MemoryError": FailureKind.OUT_OF_MEMORY,
    "OSError": FailureKind.STORAGE,
    "NodeDiedError": FailureKind.HOST_LOST,
    "RanksDidNotJoin": FailureKind.START_FAILED,
    "RanksStillRun": FailureKind.START_FAILED,
    "SchedulerDidNotStart": FailureKind.START_FAILED,
    "WorkerGroupStartupTimeoutError": FailureKind.START_FAILED,
    "WorkerGroupStartupFailedError": FailureKind.START_FAILED,
    "ActorDiedError": FailureKind.RANK_CRASHED,
    "ActorUnavailableError": FailureKind.RANK_UNREACHABLE,
    "RayActorError": FailureKind.RANK_CRASHED,
    "WorkerCrashedError": FailureKind.RANK_CRASHED,
    "WorkerHealthCheckFailedError": FailureKind.RANK_CRASHED,
}
_HOST_WORDS = (
    "node has died",
    "node died",
    "node is dead",
    "its node",
    "node failure",
    "node was terminated",
)
# Ray's message for any killed actor lists the kernel's OOM killer among what may have happened.
_MEMORY_WORDS = ("running low on memory", "memory monitor killed")
# When several ranks report, the first kind here is the cause and the others its consequences.
_CAUSES_FIRST = (
    FailureKind.PREEMPTED,
    FailureKind.LOSS_NOT_FINITE,
    FailureKind.PATH_BLOCKED,
    FailureKind.STORAGE,
    FailureKind.HOST_LOST,
    FailureKind.OUT_OF_MEMORY,
    FailureKind.RANK_UNREACHABLE,
    FailureKind.RANK_CRASHED,
    FailureKind.SCHEDULER_LOST,
    FailureKind.HANG,
    FailureKind.START_FAILED,
    FailureKind.REFUSED,
    FailureKind.STEP_FAILED,
    FailureKind.CONTROLLER,
)


def classify(error: BaseException) -> Failure:
    """Sort an error of a training group; the rank named is the one that the others only followed."""
    own = _known_kind(error)
    if own in (FailureKind.HANG, FailureKind.SCHEDULER_LOST, FailureKind.PREEMPTED):
        return Failure(own, getattr(error, "rank", None), _line(error))
    by_rank: dict[int, BaseException] = getattr(error, "worker_failures", {})
    if by_rank:
        failures = [_failure_of(rank, cause) for rank, cause in sorted(by_rank.items())]
        return min(failures, key=lambda failure: _CAUSES_FIRST.index(failure.kind))
    cause = getattr(error, "controller_failure", error)
    kind = own or _known_kind(cause) or FailureKind.CONTROLLER
    if _says(cause, _HOST_WORDS) and kind in (FailureKind.START_FAILED, FailureKind.RANK_CRASHED):
        kind = FailureKind.HOST_LOST
    return Failure(kind, None, _line(cause))


def _failure_of(rank: int, error: BaseException) -> Failure:
    """A rank's error; one that every rank raises may say which of them it is about."""
    about = [link.rank for link in _chain(error) if hasattr(link, "rank")]
    steps = [link.step for link in _chain(error) if hasattr(link, "step")]
    return Failure(_kind(error), about[0] if about else rank, _line(error), step=steps[0] if steps else None)


def _kind(error: BaseException) -> FailureKind:
    # Ray marks the death of an actor whose host was drained.
    if any(getattr(link, "preempted", False) is True for link in _chain(error)):
        return FailureKind.PREEMPTED
    kind = _known_kind(error) or FailureKind.STEP_FAILED
    if kind is FailureKind.RANK_CRASHED and _says(error, _MEMORY_WORDS):
        return FailureKind.OUT_OF_MEMORY
    if kind is FailureKind.RANK_CRASHED and _says(error, _HOST_WORDS):
        return FailureKind.HOST_LOST
    return kind


def _known_kind(error: BaseException) -> FailureKind | None:
    """The kind of the most telling error in the chain of causes."""
    chain = _chain(error)
    found = [_BY_NAME[name] for link in chain for name in _names(link) if name in _BY_NAME]
    if any(isinstance(link, OSError) and is_permanent(link) for link in chain):
        found.append(FailureKind.PATH_BLOCKED)
    return min(found, key=_CAUSES_FIRST.index) if found else None


def _chain(error: BaseException) -> list[BaseException]:
    links: list[BaseException] = []
    todo: list[BaseException | None] = [error]
    while todo:
        link = todo.pop()
        if link is None or any(link is seen for seen in links):
            continue
        links.append(link)
        todo += [getattr(link, name, None) for name in ("cause", "__cause__", "health_check_failure")]
    return [link for link in links if isinstance(link, BaseException)]


def _names(error: BaseException) -> list[str]:
    return [base.__name__ for base in type(error).__mro__]


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    text = " ".join(str(link) for link in _chain(error)).lower()
    return any(word in text for word in words)


def _line(error: BaseException) -> str:
    """What the error says, in one line; Ray's go on with tracebacks, the last line of which tells."""
    deepest = _chain(error)[-1]
    lines = [line.strip() for line in str(deepest).splitlines() if line.strip()]
    text = lines[0] if lines else type(deepest).__name__
    return text[:300]
