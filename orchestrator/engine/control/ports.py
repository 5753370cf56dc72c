"""The interfaces that the controller's decisions use: a clock, the cluster, and the running ranks.

`engine/ray_train/` implements them with Ray, the tests with fakes and a virtual clock.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from orchestrator.engine.control.generation import Member
from orchestrator.engine.messages import Heartbeat, Notice
from orchestrator.telemetry.events import RankEnd

T = TypeVar("T")
_POLL_EVERY_S = 0.1


class LaunchStopped(Exception):
    """Raised from a wait of the controller when the launcher must stop. There is nothing to save."""


class Clock(Protocol):
    """Time. The controller waits only through `wait`, so that a stop ends every wait at once."""

    def now(self) -> float:
        """Monotonic seconds."""

    def time(self) -> float:
        """Unix seconds."""

    def wait(self, seconds: float) -> None:
        """Wait. Raises LaunchStopped at once if the launcher must stop, even if that was requested earlier."""


def poll(clock: Clock, timeout_s: float, look: Callable[[], T]) -> T:
    """Call `look` until its answer is true or the time is over; returns its last answer. Raises LaunchStopped."""
    deadline = clock.now() + timeout_s
    while not (found := look()) and clock.now() < deadline:
        clock.wait(_POLL_EVERY_S)
    return found


class Ranks(Protocol):
    """The running ranks of one generation. No method blocks: a rank that hangs must not stop the controller."""

    def ask(self) -> None:
        """Ask every rank for its heartbeat, except those that have not answered the last request."""

    def answers(self) -> Mapping[int, Heartbeat]:
        """Heartbeats that arrived since the last call, by rank."""

    def silent_s(self) -> Mapping[int, float]:
        """Seconds since the request, for each rank that has not answered yet."""

    def notify(self, notice: Notice) -> None:
        """Deliver a notice to every rank."""

    def kill(self) -> None:
        """Kill every rank's process through Ray. Has no effect on a host that cannot be reached."""


class Cluster(Protocol):
    """The hosts. Methods that call hosts have a time limit and raise LaunchStopped, as `Clock.wait` does."""

    def alive_hosts(self) -> frozenset[str]:
        """Addresses of the hosts that Ray believes to be alive."""

    def draining(self) -> Mapping[str, float | None]:
        """Ids of the nodes that are being drained, with the deadline in unix seconds, None when there is none."""

    def end_ranks(self, members: Sequence[Member]) -> Mapping[str, tuple[int, ...]]:
        """Kill these ranks on their hosts and wait; returns the surviving ranks of each reachable host."""

    def end_hanging_ranks(self, members: Sequence[Member], generation: int) -> tuple[RankEnd, ...]:
        """Save the stacks of all ranks, then kill them on their hosts; one result for each rank."""
