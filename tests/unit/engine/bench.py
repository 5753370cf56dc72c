"""A group's controller with fake hosts, fake ranks and a virtual clock."""

from dataclasses import dataclass

from orchestrator.engine.control.group import ControlSettings, GroupControl
from orchestrator.engine.messages import Heartbeat
from orchestrator.storage import RunLost, StorageUnavailable
from orchestrator.telemetry.event import Event
from orchestrator.telemetry.state import RunState
from tests.unit.engine.fakes import (
    FakeCluster,
    FakePool,
    FakeRanks,
    MemoryStorage,
    Recorder,
    VirtualClock,
    members,
)

STEPPING = Heartbeat(phase="stepping", step=5, steps_reported=True)


@dataclass
class Bench:
    """A controller with its surroundings."""

    control: GroupControl
    clock: VirtualClock
    cluster: FakeCluster
    storage: MemoryStorage
    record: Recorder
    pool: FakePool
    ranks: FakeRanks
    lost: bool = False
    unreachable: bool = False

    def lose_run(self) -> None:
        """Let another launch own the run."""
        self.lost = True

    def check_owner(self) -> None:
        if self.unreachable:
            raise StorageUnavailable("lease/000002", "Stale file handle")
        if self.lost:
            raise RunLost("/runs/j", "process 4 on h7")

    def start(self, *hosts: str) -> None:
        """Start a generation with a rank on each host."""
        self.control.starting(len(hosts))
        self.control.placed(members(*hosts, first_pid=100 * self.control.generation.number))
        self.ranks = FakeRanks(self.clock, dict.fromkeys(range(len(hosts)), Heartbeat()))
        self.control.joined(self.ranks)

    def ticks(self, seconds: int) -> None:
        """Call the controller's tick once a second."""
        for _ in range(seconds):
            self.clock.advance(1.0)
            self.control.tick()

    def last(self, name: str) -> Event:
        return next(event for event in reversed(self.record.events) if event.name == name)


def bench(state: RunState | None = None, **settings: object) -> Bench:
    clock, storage, record, pool = VirtualClock(), MemoryStorage(), Recorder(), FakePool()
    cluster = FakeCluster(clock)
    control = GroupControl(
        ControlSettings(**settings),  # type: ignore[arg-type]
        state or RunState(),
        clock=clock,
        cluster=cluster,
        storage=storage,
        record=record,
        pool=pool,
        check_owner=lambda: made.check_owner(),
    )
    made = Bench(control, clock, cluster, storage, record, pool, FakeRanks(clock, {}))
    return made
