"""Ray Train's failure policy, by our rules: sort the failure, tell it, decide."""

from ray.train import FailureConfig
from ray.train.v2._internal.execution.failure_handling import FailureDecision, FailurePolicy
from ray.train.v2.api.exceptions import TrainingFailedError

from orchestrator.events import EventLog
from orchestrator.recovery.failures import classify
from orchestrator.recovery.policy import Decision, PastFailure, decide
from orchestrator.training.group import GroupWatch


class GroupFailurePolicy(FailurePolicy):
    """Decides after each failure of a group; lives in the controller, beside its `GroupWatch`."""

    def __init__(self, max_failures: int, events: EventLog, watch: GroupWatch):
        super().__init__(FailureConfig(max_failures=max_failures))
        self._max_failures, self._events, self._watch = max_failures, events, watch
        self._past: list[PastFailure] = []

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        failure = classify(training_failed_error)
        step = self._watch.step
        host = self._watch.hosts.get(failure.rank) if failure.rank is not None else None
        self._events.emit(
            "failure_detected",
            kind=failure.kind.value, rank=failure.rank, host=host, detail=failure.detail, step=step,
            generation=self._watch.generation,
        )  # fmt: skip
        verdict = decide(failure, step, self._past, self._max_failures)
        self._past.append(PastFailure(failure.kind, step))
        if verdict.decision is Decision.STOP:
            self._events.emit("giving_up", reason=verdict.reason)
            return FailureDecision.RAISE
        self._events.emit("group_restarting", reason=verdict.reason)
        return FailureDecision.RETRY
