"""What a run's events say of a drill: where the group stands, and what each fault came to. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.drill.faults import OF_HOSTS, Planned
from orchestrator.report.summary import seconds_in

Event = dict[str, Any]

_STEPPED = ("first_step", "progress", "checkpoint_saved", "epoch")
_ENDED = ("hang_found", "failure_detected", "run_finished")


@dataclass(frozen=True, slots=True)
class Group:
    """A generation that steps. ranks: host and process id of each."""

    generation: int
    step: int
    ranks: dict[int, tuple[str, int]]


def stepping_group(history: Sequence[Event]) -> Group | None:
    """The newest generation, if it has done its first step and nothing is known to have ended it."""
    generation = _of_last_generation(history)
    names = {event["event"] for event in generation}
    if "first_step" not in names or names & set(_ENDED):
        return None
    return Group(
        generation=generation[0]["generation"],
        step=max(event["step"] for event in generation if event["event"] in _STEPPED),
        ranks={e["rank"]: (e["host"], e["pid"]) for e in generation if e["event"] == "rank_joined"},
    )


def recovery_of(history: Sequence[Event], number: int, generation: int) -> Event | None:
    """The event that shows the run stepping again after fault `number`, which hit this generation.

    It is the first step of a later generation; or, when a host came back and the same generation
    goes on, the first step after that.
    """
    current, returned = 0, False
    for event in history:
        if event["event"] == "group_starting":
            current = event["generation"]
        elif event["event"] == "host_returned" and event["number"] == number:
            returned = not event["problem"]
        elif (
            event["event"] == "first_step"
            and current > generation
            or event["event"] in _STEPPED
            and current == generation
            and returned
        ):
            return event
    return None


def return_of(history: Sequence[Event], number: int) -> Event | None:
    """The event that the host of fault `number` is back, or with `problem`, why it is not."""
    return _told(history, "host_returned", number)


def was_made(history: Sequence[Event], number: int) -> bool:
    """Whether fault `number` is known to have happened."""
    return _told(history, "fault_injected", number) is not None


def waited_for_host(history: Sequence[Event], number: int) -> bool:
    """Whether the run could go on after fault `number` only with the host that the fault took away.

    The first group after the fault began to start while that host was away, and yet it has a rank
    there. So no other host was free. That is right on a cluster without a spare host; where there
    is one, it shows that the spare host is not usable.
    """
    fault, returned = _told(history, "fault_injected", number), return_of(history, number)
    if fault is None or returned is None:
        return False
    later = [event for event in history if event.get("generation", 0) > fault["generation"]]
    group = next((event for event in later if event["event"] == "group_started"), None)
    if group is None or fault["host"] not in group["hosts"]:
        return False
    began = next(
        event["t"] for event in later
        if event["event"] == "group_starting" and event["generation"] == group["generation"]
    )  # fmt: skip
    return bool(began < returned["t"])


def fault_report(history: Sequence[Event], planned: Planned, why_not: str) -> dict[str, Any]:
    """One fault as drill.json has it; `fired` only when it was seen, and a lost host came back.

    why_not: what stood in its way when it was last tried.
    """
    report: dict[str, Any] = {"number": planned.number, "fault": planned.fault.value, "fired": False}
    told = _told(history, "fault_injected", planned.number)
    if told is None:
        return {**report, "rank": None, "host": None, "step": None, "proof": why_not or "the run had ended",
                "named": None, "seconds_lost": None, "waited_for_host": False}  # fmt: skip
    failure = next((event for event in history if _is_failure_of(event, told["generation"])), None)
    recovery = recovery_of(history, planned.number, told["generation"])
    corrupt = _set_aside(history, told.get("checkpoint"))
    proof = told["proof"] if corrupt is None else f"{told['proof']}, set aside as {corrupt}"
    fired = corrupt is not None or "checkpoint" not in told
    if planned.fault in OF_HOSTS:
        problem = _why_host_is_not_back(history, planned.number)
        fired = fired and not problem
        proof += f", {problem or _how_host_is_back(history, planned.number)}"
    return {
        **report,
        "fired": fired,
        "rank": told["rank"],
        "host": told["host"],
        "step": told["step"],
        "proof": proof,
        "named": failure and failure["kind"],
        "seconds_lost": recovery and round(max(recovery["t"] - told["at"], 0.0), 1),
        "waited_for_host": planned.fault in OF_HOSTS and waited_for_host(history, planned.number),
    }


def mean_step_s(history: Sequence[Event]) -> float | None:
    """Mean seconds of a step of the last generation, saving included, evaluating and the first step not."""
    generation = _of_last_generation(history)
    first = next((event for event in generation if event["event"] == "first_step"), None)
    epochs = [event for event in generation if event["event"] == "epoch"]
    if first is None or not epochs or epochs[-1]["step"] == first["step"]:
        return None
    evaluating = sum(event.get("evaluate_s", 0.0) for event in epochs)
    steps: int = epochs[-1]["step"] - first["step"]
    return float(epochs[-1]["t"] - first["t"] - evaluating) / steps


def goodput(history: Sequence[Event], steps: int, step_s: float | None) -> float | None:
    """The share of the train stage's wall time that undisturbed steps would have taken."""
    train_s = seconds_in(list(history), "train")
    return None if not train_s or step_s is None else round(steps * step_s / train_s, 4)


def _of_last_generation(history: Sequence[Event]) -> Sequence[Event]:
    starts = [number for number, event in enumerate(history) if event["event"] == "group_starting"]
    return history[starts[-1] :] if starts else ()


def _told(history: Sequence[Event], name: str, number: int) -> Event | None:
    return next((event for event in history if event["event"] == name and event["number"] == number), None)


def _why_host_is_not_back(history: Sequence[Event], number: int) -> str:
    """Empty when the host of fault `number` is back."""
    returned, missing = return_of(history, number), _told(history, "host_missing", number)
    if returned is None:
        return "the host did not report that it is back"
    if missing is not None and not returned["problem"]:
        return f"Ray did not list the host again within {missing['waited_s']:.0f} s"
    problem: str = returned["problem"]
    return problem


def _how_host_is_back(history: Sequence[Event], number: int) -> str:
    returned = return_of(history, number)
    note = returned.get("note") if returned else ""
    return f"the host is back {note}" if note else "the host is back"


def _is_failure_of(event: Event, generation: int) -> bool:
    return event["event"] == "failure_detected" and event["generation"] == generation


def _set_aside(history: Sequence[Event], checkpoint: str | None) -> str | None:
    """The name under which a spoilt checkpoint was set aside, once it was."""
    for event in history:
        if event["event"] == "checkpoint_corrupt" and checkpoint:
            name: str = event["checkpoint"]
            if name.startswith(f"{checkpoint}."):
                return name
    return None
