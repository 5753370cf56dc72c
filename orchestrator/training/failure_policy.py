"""Ray Train's failure policy, by our rules: sort the failure, tell it, decide."""

import dataclasses
import time

import ray
from ray.train import FailureConfig
from ray.train.v2._internal.execution.failure_handling import FailureDecision, FailurePolicy
from ray.train.v2.api.exceptions import TrainingFailedError

from orchestrator.events import EventLog
from orchestrator.recovery.failures import FailureKind, classify
from orchestrator.recovery.policy import Decision, PastFailure, decide
from orchestrator.run_directory import RunDirectory
from orchestrator.training.group import GroupWatch
from orchestrator.training.growth import count_hosts_anew

# Ray knows that a host is dead some seconds after its connections broke (see docs/faults.md).
_HOST_STATE_S = 8.0
_ASK_EVERY_S = 0.1
# As long as a checkpoint is tried, and as much again.
_STORAGE_S = 60.0


class GroupFailurePolicy(FailurePolicy):
    """Decides after each failure of a group; lives in the controller, beside its `GroupWatch`."""

    def __init__(self, max_failures: int, events: EventLog, watch: GroupWatch):
        super().__init__(FailureConfig(max_failures=max_failures))
        self._max_failures, self._events, self._watch = max_failures, events, watch
        self._past: list[PastFailure] = []

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        failure = classify(training_failed_error)
        # The watch asks once a second only.
        step = self._watch.step if failure.step is None else failure.step
        host = self._watch.hosts.get(failure.rank) if failure.rank is not None else None
        if failure.kind in (FailureKind.RANK_UNREACHABLE, FailureKind.RANK_CRASHED):
            failure = dataclasses.replace(failure, kind=_crashed_or_lost(failure.kind, host))
        # A file where the mount point was fails like one inside the run, but may pass.
        if failure.kind is FailureKind.PATH_BLOCKED and not _run_of(self._events).takes_writes():
            failure = dataclasses.replace(failure, kind=FailureKind.STORAGE)
        self._events.emit(
            "failure_detected",
            kind=failure.kind.value, rank=failure.rank, host=host, detail=failure.detail, step=step,
            generation=self._watch.generation,
        )  # fmt: skip
        if failure.kind is FailureKind.HOST_LOST:
            count_hosts_anew()
        if failure.kind is FailureKind.STORAGE and not _storage_is_back(self._events):
            self._events.emit("giving_up", reason=f"storage did not come back within {_STORAGE_S:.0f} s")
            return FailureDecision.RAISE
        verdict = decide(failure, step, self._past, self._max_failures)
        self._past.append(PastFailure(failure.kind, step))
        if verdict.decision is Decision.STOP:
            self._events.emit("giving_up", reason=verdict.reason)
            return FailureDecision.RAISE
        self._events.emit("group_restarting", reason=verdict.reason)
        return FailureDecision.RETRY


def _crashed_or_lost(kind: FailureKind, host: str | None) -> FailureKind:
    """Whether only the rank is gone, or its host; waits for Ray's word when the connection just broke."""
    deadline = time.monotonic() + (_HOST_STATE_S if kind is FailureKind.RANK_UNREACHABLE else 0)
    while True:
        alive = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
        if host is not None and host not in alive:
            return FailureKind.HOST_LOST
        if time.monotonic() >= deadline:
            return FailureKind.RANK_CRASHED
        time.sleep(_ASK_EVERY_S)


def _storage_is_back(events: EventLog) -> bool:
    """Wait until the run directory takes files again: until then no generation could start."""
    run = _run_of(events)
    deadline = time.monotonic() + _STORAGE_S
    while not run.takes_writes():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_ASK_EVERY_S)
    return True


def _run_of(events: EventLog) -> RunDirectory:
    return RunDirectory(events.path.parent)
