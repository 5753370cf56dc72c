"""Events in the life of a generation, and the decision after its failure."""

from dataclasses import dataclass

from orchestrator.telemetry.event import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStarting(Event):
    """A generation of the group begins: one start of all its ranks."""

    generation: int
    world_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersStarted(Event):
    """The processes of all ranks run; the rendezvous has not begun yet."""

    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RankJoined(Event):
    """A rank entered the group. started: when its process started, in clock ticks after boot."""

    rank: int
    host: str
    pid: int
    started: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStarted(Event):
    """All ranks completed the rendezvous and can compute."""

    generation: int
    world_size: int
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StandbysReady(Event):
    """Standby workers have imported everything and wait. started: how many were started this time."""

    started: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Straggler(Event):
    """A rank needs much longer for its own work than the others. factor: how many times the median."""

    rank: int
    host: str
    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HangFound(Event):
    """No rank makes progress. ranks: those that are behind; step: their step; host: of the first."""

    ranks: tuple[int, ...]
    step: int
    host: str


@dataclass(frozen=True, slots=True)
class RankEnd:
    """How one rank of a hanging group was ended. gone: whether its process has ended.

    stacks: name of the object with its stacks, or empty. problem: why there are none, or empty.
    """

    rank: int
    stacks: str
    problem: str
    gone: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupEnded(Event):
    """The hosts of a hanging group saved the stacks of its ranks, where possible, and killed them."""

    generation: int
    ranks: tuple[RankEnd, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainNoticed(Event):
    """Ray drains a host of the group. left_s: seconds until its deadline, null when there is none."""

    hosts: tuple[str, ...]
    ranks: tuple[int, ...]
    left_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fenced(Event):
    """The last generation's ranks are gone from all reachable hosts. unreachable: the hosts that did not answer."""

    ranks: tuple[int, ...]
    unreachable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftoversEnded(Event):
    """Processes of an earlier generation still ran on a host and were killed."""

    host: str
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureDetected(Event):
    """A generation failed. kind: see docs/faults.md; rank, host: where it began, null when unknown."""

    kind: str
    rank: int | None = None
    host: str | None = None
    detail: str = ""
    step: int = 0
    generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRestarting(Event):
    """The next generation will start."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GivingUp(Event):
    """No further generation will start."""

    reason: str
