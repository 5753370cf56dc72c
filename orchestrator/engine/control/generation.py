"""One generation of the group: one start of all its ranks. The controller owns exactly one at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.telemetry.state import Process


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Where one rank runs.

    host: its address, as Ray knows it. node: Ray's id of the host's raylet. started: when the process started,
    in clock ticks after its host booted; a pid alone does not identify a process. npus: devices, as Ray numbers them.
    """

    rank: int
    host: str
    node: str
    pid: int
    started: int | None = None
    npus: tuple[int, ...] = ()


class Phase(StrEnum):
    """starting: processes may exist, ranks do not compute. running: ranks compute. ended: ranks are being killed."""

    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(slots=True)
class Generation:
    """The ranks of one start and their progress.

    step: the highest global step that any rank reported. saved: name of the newest valid checkpoint that rank 0
    reported.
    """

    number: int
    world_size: int
    phase: Phase = Phase.STARTING
    members: tuple[Member, ...] = ()
    step: int = 0
    saved: str | None = None

    @property
    def hosts(self) -> tuple[str, ...]:
        """Addresses of the hosts, each once, in order of their first rank."""
        return tuple(dict.fromkeys(member.host for member in self.members))

    def host_of(self, rank: int | None) -> str | None:
        """Address of the host of a rank; None when it is not known."""
        return next((member.host for member in self.members if member.rank == rank), None)


def processes_of(members: Sequence[Member]) -> dict[str, Process]:
    """The ranks' processes, in the form in which the run's state stores them."""
    return {
        str(member.rank): Process(host=member.host, pid=member.pid, started=member.started)
        for member in members
    }


def members_of(ranks: Mapping[str, Process]) -> tuple[Member, ...]:
    """The ranks in the run's state. They may still run if the launch that started them was killed."""
    return tuple(
        Member(rank=int(rank), host=process.host, node="", pid=process.pid, started=process.started)
        for rank, process in sorted(ranks.items(), key=lambda item: int(item[0]))
    )
