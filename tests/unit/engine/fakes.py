"""Fakes around the controller: virtual time, and hosts and ranks that a test controls."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.engine.control.generation import Member
from orchestrator.engine.control.ports import LaunchStopped
from orchestrator.engine.messages import Heartbeat, Notice
from orchestrator.storage import ObjectMissing, StorageUnavailable
from orchestrator.telemetry.event import Event
from orchestrator.telemetry.events import RankEnd


class VirtualClock:
    """Time passes only when code waits, or a test advances it. `at` schedules actions."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.stopped = False
        self._due: list[tuple[float, Callable[[], None]]] = []

    def now(self) -> float:
        return self.seconds

    def time(self) -> float:
        return 1_700_000_000.0 + self.seconds

    def at(self, seconds_from_now: float, action: Callable[[], None]) -> None:
        self._due.append((self.seconds + seconds_from_now, action))
        self._due.sort(key=lambda item: item[0])

    def advance(self, seconds: float) -> None:
        end = self.seconds + seconds
        while self._due and self._due[0][0] <= end:
            self.seconds, action = self._due.pop(0)
            action()
        self.seconds = end

    def stop(self) -> None:
        self.stopped = True

    def wait(self, seconds: float) -> None:
        if self.stopped:
            raise LaunchStopped
        end = self.seconds + seconds
        while self._due and self._due[0][0] <= end:
            self.seconds, action = self._due.pop(0)
            action()
            if self.stopped:
                raise LaunchStopped
        self.seconds = end


@dataclass
class FakeCluster:
    """Hosts by address. remaining: ranks that survive SIGKILL. unreachable: hosts that cannot be asked."""

    clock: VirtualClock
    alive: set[str] = field(default_factory=lambda: {"h0", "h1", "h2"})
    drained: dict[str, float | None] = field(default_factory=dict)
    remaining: set[int] = field(default_factory=set)
    unreachable: set[str] = field(default_factory=set)
    fenced: list[tuple[int, ...]] = field(default_factory=list)
    dumped: list[int] = field(default_factory=list)
    answer_s: float = 0.0

    def alive_hosts(self) -> frozenset[str]:
        return frozenset(self.alive)

    def draining(self) -> Mapping[str, float | None]:
        return self.drained

    def end_ranks(self, members: Sequence[Member]) -> Mapping[str, tuple[int, ...]]:
        self.clock.wait(self.answer_s)
        self.fenced.append(tuple(member.pid for member in members))
        hosts = {member.host for member in members} - self.unreachable
        return {
            host: tuple(m.rank for m in members if m.host == host and m.rank in self.remaining)
            for host in hosts
        }

    def end_hanging_ranks(self, members: Sequence[Member], generation: int) -> tuple[RankEnd, ...]:
        self.clock.wait(self.answer_s)
        self.dumped.append(generation)
        return tuple(RankEnd(member.rank, f"rank_{member.rank}.txt", "", True) for member in members)


@dataclass
class FakeRanks:
    """Ranks that answer with the heartbeat that a test gave them; `frozen` ones never answer."""

    clock: VirtualClock
    beats: dict[int, Heartbeat]
    frozen: set[int] = field(default_factory=set)
    notices: list[Notice] = field(default_factory=list)
    killed: bool = False
    _asked: dict[int, float] = field(default_factory=dict)

    def ask(self) -> None:
        for rank in self.beats:
            self._asked.setdefault(rank, self.clock.now())

    def answers(self) -> Mapping[int, Heartbeat]:
        ready = [rank for rank in self._asked if rank not in self.frozen]
        for rank in ready:
            del self._asked[rank]
        return {rank: self.beats[rank] for rank in ready}

    def silent_s(self) -> Mapping[int, float]:
        return {rank: self.clock.now() - at for rank, at in self._asked.items()}

    def notify(self, notice: Notice) -> None:
        self.notices.append(notice)

    def kill(self) -> None:
        self.killed = True

    def all_beat(self, beat: Heartbeat) -> None:
        self.beats = dict.fromkeys(self.beats, beat)


@dataclass
class FakePool:
    """Standby workers: how often they were started, and how many are ready."""

    started: int = 0
    ready: int = 0

    def start_missing(self) -> None:
        self.started += 1

    def newly_ready(self) -> int:
        ready, self.ready = self.ready, 0
        return ready


class MemoryStorage:
    """Objects in memory; `away` refuses everything, as a mount without a server does."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.tidied: list[str] = []
        self.away = False

    def put(self, name: str, content: bytes) -> None:
        self._answer(name)
        self.objects[name] = content

    def get(self, name: str) -> bytes:
        self._answer(name)
        if name not in self.objects:
            raise ObjectMissing(name, "no such object")
        return self.objects[name]

    def get_range(self, name: str, start: int, size: int) -> bytes:
        return self.get(name)[start : start + size]

    def list(self, prefix: str) -> list[str]:
        self._answer(prefix)
        return sorted(name for name in self.objects if name.startswith(prefix))

    def delete(self, name: str) -> None:
        self._answer(name)
        self.objects.pop(name, None)

    def create(self, name: str, content: bytes) -> bool:
        self._answer(name)
        return self.objects.setdefault(name, content) == content

    def tidy(self, folder: str) -> None:
        self._answer(folder)
        self.tidied.append(folder)

    def describe(self) -> str:
        return "memory"

    def _answer(self, name: str) -> None:
        if self.away:
            raise StorageUnavailable(name, "Transport endpoint is not connected")


@dataclass
class Recorder:
    """Keeps the events that were recorded."""

    events: list[Event] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def names(self) -> list[str]:
        return [event.name for event in self.events]


def members(*hosts: str, first_pid: int = 100) -> tuple[Member, ...]:
    """One rank on each of the hosts."""
    return tuple(
        Member(rank=rank, host=host, node=f"node-{host}", pid=first_pid + rank, started=rank)
        for rank, host in enumerate(hosts)
    )
