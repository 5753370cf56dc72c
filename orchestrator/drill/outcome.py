"""Evaluates the events of a drill: the current group, and the cost of each fault. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from orchestrator.drill.faults import OF_HOSTS, Planned
from orchestrator.report.summary import seconds_in
from orchestrator.telemetry import events
from orchestrator.telemetry.event import Recorded
from orchestrator.telemetry.state import Process, RunState

_STEPPED = (events.FirstStep, events.Progress, events.CheckpointSaved, events.Epoch)
_ENDED = (events.HangFound, events.FailureDetected, events.RunFinished)

OfFault = TypeVar("OfFault", events.FaultInjected, events.HostReturned, events.HostMissing)


@dataclass(frozen=True, slots=True)
class Group:
    """A generation that makes steps. lease: of its launch. ranks: the process of each."""

    lease: int
    generation: int
    step: int
    ranks: Mapping[int, Process]


def stepping_group(history: Sequence[Recorded], state: RunState) -> Group | None:
    """The newest generation, if it has done its first step and has not ended.

    state: of the run. If it is a moment older or newer than the events, the result is None.
    """
    generation = [recorded.event for recorded in _last_generation(history)]
    started = any(isinstance(event, events.FirstStep) for event in generation)
    if not started or any(isinstance(event, _ENDED) for event in generation):
        return None
    number = next(e.generation for e in generation if isinstance(e, events.GroupStarting))
    if state.generation != number or not state.ranks:
        return None
    return Group(
        lease=state.lease,
        generation=number,
        step=max(event.step for event in generation if isinstance(event, _STEPPED)),
        ranks={int(rank): process for rank, process in state.ranks.items()},
    )


def total_steps(history: Sequence[Recorded], pid: int) -> int | None:
    """The steps of the whole run, as the launch of this process reports them after its first step; None before.

    An earlier launch may have been of a job with another number of steps.
    """
    ours = False
    for recorded in history:
        match recorded.event:
            case events.RunStarted(pid=launcher):
                ours = launcher == pid
            case events.Progress(steps=int(steps)) if ours:
                return steps
    return None


def recovered_at(history: Sequence[Recorded], number: int, generation: int) -> float | None:
    """When the run made a step again after fault `number`, which hit this generation; None if it did not.

    That is the first step of a later generation. If a host came back before its loss was detected, the same
    generation continues, and it is the first step after the return.
    """
    current, returned = 0, False
    for recorded in history:
        match recorded.event:
            case events.GroupStarting(generation=current):
                pass
            case events.HostReturned(number=of, problem=problem) if of == number:
                returned = not problem
            case events.FirstStep() if current > generation:
                return recorded.t
            case event if isinstance(event, _STEPPED) and current == generation and returned:
                return recorded.t
    return None


def return_of(history: Sequence[Recorded], number: int) -> events.HostReturned | None:
    """The event about the return of the host of fault `number`. Its `problem` says why the host is not back."""
    return _of_fault(history, events.HostReturned, number)


def was_made(history: Sequence[Recorded], number: int) -> bool:
    """Whether fault `number` is known to have happened."""
    return _of_fault(history, events.FaultInjected, number) is not None


def waited_for_host(history: Sequence[Recorded], number: int) -> bool:
    """Whether the first group after fault `number` had to wait for the host that the fault disabled.

    That is so if the group began to start before the host returned, and has a rank there: no other host was free.
    On a cluster with a spare host, this means that the spare host is not usable.
    """
    fault = _of_fault(history, events.FaultInjected, number)
    returned_at = _time_of_return(history, number)
    if fault is None or returned_at is None:
        return False
    began: dict[int, float] = {}
    for recorded in history:
        match recorded.event:
            case events.GroupStarting(generation=generation):
                began[generation] = recorded.t
            case events.GroupStarted(generation=generation, hosts=hosts) if generation > fault.generation:
                return fault.host in hosts and began[generation] < returned_at
    return False


def fault_report(history: Sequence[Recorded], planned: Planned, why_not: str) -> dict[str, Any]:
    """The entry of one fault in drill.json. `fired`: its events were seen, and a lost host came back.

    why_not: what prevented the last try.
    """
    report: dict[str, Any] = {"number": planned.number, "fault": planned.fault.value, "fired": False}
    injected = _of_fault(history, events.FaultInjected, planned.number)
    if injected is None:
        return {**report, "rank": None, "host": None, "step": None, "proof": why_not or "the run had ended",
                "named": None, "seconds_lost": None, "waited_for_host": False}  # fmt: skip
    at = recovered_at(history, planned.number, injected.generation)
    fired, proof = _seen(history, planned, injected)
    return {
        **report,
        "fired": fired,
        "rank": injected.rank,
        "host": injected.host,
        "step": injected.step,
        "proof": proof,
        "named": _failure_of(history, injected.generation),
        "seconds_lost": None if at is None else round(max(at - injected.at, 0.0), 1),
        "waited_for_host": planned.fault in OF_HOSTS and waited_for_host(history, planned.number),
    }


def mean_step_s(history: Sequence[Recorded]) -> float | None:
    """Mean seconds of a step of the last generation, including saves, without evaluations and the first step."""
    generation = _last_generation(history)
    first = next(((r.t, r.event.step) for r in generation if isinstance(r.event, events.FirstStep)), None)
    epochs = [(r.t, r.event) for r in generation if isinstance(r.event, events.Epoch)]
    if first is None or not epochs or epochs[-1][1].step == first[1]:
        return None
    evaluating_s = sum(epoch.evaluate_s or 0.0 for _, epoch in epochs)
    last_t, last = epochs[-1]
    return (last_t - first[0] - evaluating_s) / (last.step - first[1])


def goodput(history: Sequence[Recorded], steps: int, step_s: float | None) -> float | None:
    """The share of the train stage's wall time that the same steps need without faults."""
    train_s = seconds_in(history, "train")
    return None if not train_s or step_s is None else round(steps * step_s / train_s, 4)


def _last_generation(history: Sequence[Recorded]) -> Sequence[Recorded]:
    starts = [at for at, recorded in enumerate(history) if isinstance(recorded.event, events.GroupStarting)]
    return history[starts[-1] :] if starts else ()


def _of_fault(history: Sequence[Recorded], kind: type[OfFault], number: int) -> OfFault | None:
    """The first event of this kind about fault `number`."""
    for recorded in history:
        if isinstance(recorded.event, kind) and recorded.event.number == number:
            return recorded.event
    return None


def _time_of_return(history: Sequence[Recorded], number: int) -> float | None:
    for recorded in history:
        if isinstance(recorded.event, events.HostReturned) and recorded.event.number == number:
            return recorded.t
    return None


def _seen(history: Sequence[Recorded], planned: Planned, injected: events.FaultInjected) -> tuple[bool, str]:
    """Whether all events of the fault were seen, and the proof."""
    fired, proof = True, injected.proof
    if injected.checkpoint is not None:
        fired = _was_found_corrupt(history, injected.checkpoint)
        proof += ", found corrupt" if fired else ""
    if planned.fault in OF_HOSTS:
        problem = _why_host_is_not_back(history, planned.number)
        fired = fired and not problem
        proof += f", {problem or _how_host_is_back(history, planned.number)}"
    return fired, proof


def _why_host_is_not_back(history: Sequence[Recorded], number: int) -> str:
    """Empty when the host of fault `number` is back."""
    returned, missing = return_of(history, number), _of_fault(history, events.HostMissing, number)
    if returned is None:
        return "the host did not report that it is back"
    if missing is not None and not returned.problem:
        return f"Ray did not list the host again within {missing.waited_s:.0f} s"
    return returned.problem


def _how_host_is_back(history: Sequence[Recorded], number: int) -> str:
    returned = return_of(history, number)
    return f"the host is back {returned.note}" if returned and returned.note else "the host is back"


def _failure_of(history: Sequence[Recorded], generation: int) -> str | None:
    """The failure kind that the run detected at the end of a generation."""
    for recorded in history:
        if isinstance(recorded.event, events.FailureDetected) and recorded.event.generation == generation:
            return recorded.event.kind
    return None


def _was_found_corrupt(history: Sequence[Recorded], checkpoint: str) -> bool:
    found = (r.event.checkpoint for r in history if isinstance(r.event, events.CheckpointCorrupt))
    return checkpoint in found
