"""What to do after a failure: resume or stop. Pure: counts in, decision out."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.recovery.failures import Failure, FailureKind


class Decision(StrEnum):
    """resume: start the next generation from the newest good checkpoint. stop: end the run."""

    RESUME = "resume"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision, and why in a line."""

    decision: Decision
    reason: str


# A bug fails again wherever it is tried; a rare fault of the device may not.
_TRIES_AT_ONE_STEP = 2
_NEVER_RETRIED = {
    FailureKind.LOSS_NOT_FINITE: "another try would end the same way",
    FailureKind.REFUSED: "another try would end the same way",
    FailureKind.PATH_BLOCKED: "move away what lies at this path, or give access to it, and launch again",
}
# Announced by the cluster and not our fault: they cost no budget.
_FREE = frozenset({FailureKind.PREEMPTED})


@dataclass(frozen=True, slots=True)
class PastFailure:
    """A failure that the run has been through, and the global step it was at."""

    kind: FailureKind
    step: int


def decide(failure: Failure, step: int, past: Sequence[PastFailure], max_failures: int) -> Verdict:
    """Decide on a failure at `step`, given those before it (this one not among them).

    Hosts lost, ranks crashed, hangs and starts that failed have a budget of `max_failures`
    each; preemptions have none. An exception from our own step is tried once more, and stops
    the run when it comes back at the same step. A loss that is not finite, a path that is
    blocked, and what the user must correct, stop it at once.
    """
    if failure.kind in _NEVER_RETRIED:
        return Verdict(Decision.STOP, _NEVER_RETRIED[failure.kind])
    if failure.kind in _FREE:
        return Verdict(Decision.RESUME, "preempted; preemptions are not counted")
    same = [other for other in past if other.kind is failure.kind]
    if failure.kind is FailureKind.STEP_FAILED:
        here = sum(other.step == step for other in same) + 1
        if here >= _TRIES_AT_ONE_STEP:
            return Verdict(Decision.STOP, f"the step after {step} failed {here} times the same way")
    if len(same) >= max_failures:
        return Verdict(
            Decision.STOP,
            f"{len(same) + 1} times {failure.kind.value}, above recovery.max_failures {max_failures}",
        )
    return Verdict(Decision.RESUME, f"{failure.kind.value} {len(same) + 1} of at most {max_failures}")
