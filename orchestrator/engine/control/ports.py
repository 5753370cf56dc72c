"""What the controller's decisions need from outside: a clock, the cluster, and the running ranks.

Tests give them fakes and a virtual clock. `engine/ray_train/` gives them Ray.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from orchestrator.engine.control.generation import Member
from orchestrator.engine.messages import Heartbeat, Notice
from orchestrator.telemetry.events import RankEnd


class LaunchStopped(Exception):
    """The launcher must stop while the controller waits. There is nothing to save."""


class Clock(Protocol):
    """Time, and the only way to wait."""

    def now(self) -> float:
        """Monotonic seconds."""

    def time(self) -> float:
        """Unix seconds."""

    def wait(self, seconds: float) -> None:
        """Wait. Raises LaunchStopped at once when the launcher must stop, now or earlier."""


class Ranks(Protocol):
    """The running ranks of one generation. No method waits for a rank."""

    def ask(self) -> None:
        """Ask every rank that owes no answer for its heartbeat."""

    def answers(self) -> Mapping[int, Heartbeat]:
        """Heartbeats that arrived since the last call, by rank."""

    def silent_s(self) -> Mapping[int, float]:
        """For each rank that owes an answer: seconds since it was asked."""

    def notify(self, notice: Notice) -> None:
        """Deliver a notice to every rank."""

    def kill(self) -> None:
        """Kill every rank's process through Ray. A host that is gone cannot obey."""


class Cluster(Protocol):
    """The hosts. Methods that ask hosts wait a bounded time and raise LaunchStopped like `Clock.wait`."""

    def alive_hosts(self) -> frozenset[str]:
        """Addresses of the hosts that Ray believes to be alive."""

    def draining(self) -> Mapping[str, float | None]:
        """Ids of the nodes that are being drained, with the deadline in unix seconds, None when there is none."""

    def end_ranks(self, members: Sequence[Member]) -> Mapping[str, tuple[int, ...]]:
        """Kill these ranks on their hosts and wait. By host: ranks that remain. Unreachable hosts are absent."""

    def end_hanging_ranks(self, members: Sequence[Member], generation: int) -> tuple[RankEnd, ...]:
        """Save the stacks of all ranks, then kill them on their hosts; by rank."""
