"""Events of a drill: faults that it injects, and hosts that return."""

from dataclasses import dataclass

from orchestrator.telemetry.event import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultInjected(Event):
    """`drill` injected a fault. at: when, in unix seconds of its host; proof: evidence that it happened.

    generation, step: of the group when it was chosen. damage, checkpoint: the damage, and the damaged checkpoint.
    """

    number: int
    fault: str
    generation: int
    step: int
    rank: int
    host: str
    at: float
    proof: str
    damage: str | None = None
    checkpoint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReturned(Event):
    """A host that `drill` disabled is back, or could not be brought back: then `problem` says why.

    note: what differs from before.
    """

    number: int
    host: str
    problem: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMissing(Event):
    """Ray did not list a host again that `drill` disabled. waited_s: for how long `drill` waited."""

    number: int
    host: str
    waited_s: float
