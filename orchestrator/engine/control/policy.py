"""Decides after a failure: resume or stop. Pure: counts in, decision out."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.engine.control.failures import Failure, FailureKind
from orchestrator.telemetry.state import Attempt


class Decision(StrEnum):
    """resume: start the next generation from the newest valid checkpoint. stop: end the run."""

    RESUME = "resume"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision, and its reason in one line."""

    decision: Decision
    reason: str


# A bug fails again at the same step on any host; a rare fault of a device probably does not.
_TRIES_AT_ONE_STEP = 2
_NEVER_RETRIED = {
    FailureKind.RUN_LOST: "another launch owns the run",
    FailureKind.LOSS_NOT_FINITE: "another try would end the same way",
    FailureKind.REFUSED: "another try would end the same way",
    FailureKind.PATH_BLOCKED: "move away what is at this path, or give access to it, and launch again",
}
# The cluster announces these. They are not errors, so they are not counted.
_FREE = frozenset({FailureKind.PREEMPTED})


def decide(failure: Failure, step: int, past: Sequence[Attempt], max_failures: int) -> Verdict:
    """Decide on a failure at `step`. past: the earlier failures of this launch, without this one.

    Each kind of failure may occur `max_failures` times; preemptions are not limited. After an error of the training
    function the step is tried once more; a second error at the same step stops the run. A loss that is not finite
    and a mistake that the user must correct stop the run at once.
    """
    kind = failure.kind
    if kind in _NEVER_RETRIED:
        return Verdict(Decision.STOP, _NEVER_RETRIED[kind])
    if kind in _FREE:
        return Verdict(Decision.RESUME, "preempted; preemptions are not counted")
    same = [attempt for attempt in past if attempt.kind == kind.value]
    if kind is FailureKind.STEP_FAILED:
        here = sum(attempt.step == step for attempt in same) + 1
        if here >= _TRIES_AT_ONE_STEP:
            return Verdict(Decision.STOP, f"the step after {step} failed {here} times the same way")
    if len(same) >= max_failures:
        return Verdict(
            Decision.STOP, f"{len(same) + 1} times {kind.value}, above recovery.max_failures {max_failures}"
        )
    return Verdict(Decision.RESUME, f"{kind.value} {len(same) + 1} of at most {max_failures}")
