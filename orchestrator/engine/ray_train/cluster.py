"""The cluster and the running ranks, as the controller reaches them through Ray."""

import functools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import ray
from ray.train.v2._internal.execution.worker_group.worker import Worker

from orchestrator.engine.control.generation import Member
from orchestrator.engine.control.ports import LaunchStopped
from orchestrator.engine.host.end import end_hanging_ranks_here, end_ranks_here
from orchestrator.engine.host.every_host import Answer, HostTask, ask_every_host
from orchestrator.engine.messages import Heartbeat, Notice
from orchestrator.engine.rank.link import deliver_notice, read_heartbeat
from orchestrator.engine.ray_train.ray_core import draining_nodes
from orchestrator.engine.start.answers import as_reference
from orchestrator.storage import Storage
from orchestrator.telemetry.events import RankEnd

T = TypeVar("T")

_FENCE_ANSWER_S = 10.0
# On each host the stacks take up to 10 s, and then the ranks up to 10 s to end.
_STACKS_ANSWER_S = 40.0


def ask(worker: Worker, function: Callable[..., T], *args: object) -> "ray.ObjectRef[T]":
    """Call a function on a worker, in its main thread; returns a reference to its result."""
    return as_reference(worker.execute_async(function, *args))


class ControllerClock:
    """Real time. After `stop`, every wait ends at once with LaunchStopped."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def time(self) -> float:
        """Unix seconds."""
        return time.time()

    def wait(self, seconds: float) -> None:
        """Wait, or raise LaunchStopped."""
        if self._stopped.wait(seconds):
            raise LaunchStopped

    def stop(self) -> None:
        """Let all waits end, in any thread."""
        self._stopped.set()


class RayCluster:
    """The hosts of the connected cluster. run: the mark of this run's processes."""

    def __init__(self, storage: Storage, run: str, clock: ControllerClock):
        self._storage, self._run, self._clock = storage, run, clock

    def alive_hosts(self) -> frozenset[str]:
        """See `control.ports.Cluster`."""
        return frozenset(node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"])

    def draining(self) -> Mapping[str, float | None]:
        """See `control.ports.Cluster`."""
        return draining_nodes()

    def end_ranks(self, members: Sequence[Member]) -> Mapping[str, tuple[int, ...]]:
        """See `control.ports.Cluster`. This host is called directly: a Ray task takes seconds to start."""
        end = functools.partial(end_ranks_here, members=tuple(members), run=self._run)
        own = ray.util.get_node_ip_address()
        others = {member.host for member in members} - {own}
        answers = self._ask(end, _FENCE_ANSWER_S, others) if others else ()
        ended = {answer.address: answer.value for answer in answers if answer.value is not None}
        return {**ended, own: end(own)}

    def end_hanging_ranks(self, members: Sequence[Member], generation: int) -> tuple[RankEnd, ...]:
        """See `control.ports.Cluster`."""
        end = functools.partial(
            end_hanging_ranks_here,
            members=tuple(members),
            run=self._run,
            storage=self._storage,
            folder=f"logs/stacks.{generation}/",
        )
        hosts = {member.host for member in members}
        answers = {answer.address: answer for answer in self._ask(end, _STACKS_ANSWER_S, hosts)}
        ended = []
        for member in members:
            answer = answers.get(member.host)
            if answer is not None and answer.value is not None:
                ended.append(answer.value[member.rank])
            else:
                problem = answer.error if answer else f"host {member.host} is not in the Ray cluster any more"
                ended.append(RankEnd(member.rank, "", problem, gone=False))
        return tuple(ended)

    def _ask(self, function: HostTask[T], timeout_s: float, hosts: set[str]) -> tuple[Answer[T], ...]:
        return ask_every_host(function, timeout_s, only=hosts, wait=self._clock.wait)


class RayRanks:
    """The running ranks of one generation."""

    def __init__(self, workers: Sequence[Worker], group: str, clock: ControllerClock):
        self._workers, self._group, self._clock = list(workers), group, clock
        self._asked: dict[int, tuple[ray.ObjectRef[Heartbeat], float]] = {}

    def ask(self) -> None:
        """See `control.ports.Ranks`."""
        for rank, worker in enumerate(self._workers):
            if rank not in self._asked:
                self._asked[rank] = ask(worker, read_heartbeat, self._group), self._clock.now()

    def answers(self) -> Mapping[int, Heartbeat]:
        """See `control.ports.Ranks`."""
        ranks = {answer: rank for rank, (answer, _) in self._asked.items()}
        ready, _ = ray.wait(list(ranks), num_returns=len(ranks), timeout=0) if ranks else ([], [])
        beats = {}
        for answer in ready:
            try:
                beats[ranks[answer]] = ray.get(answer)
            except ray.exceptions.RayError:
                continue  # the rank is dead: Ray Train's own poll reports it, with the cause
            del self._asked[ranks[answer]]
        return beats

    def silent_s(self) -> Mapping[int, float]:
        """See `control.ports.Ranks`."""
        now = self._clock.now()
        return {rank: now - at for rank, (_, at) in self._asked.items()}

    def notify(self, notice: Notice) -> None:
        """See `control.ports.Ranks`."""
        for worker in self._workers:
            ask(worker, deliver_notice, self._group, notice)

    def kill(self) -> None:
        """See `control.ports.Ranks`."""
        for worker in self._workers:
            ray.kill(worker.actor)
