"""Leaving with notice: noticed by the controller, agreed on by the ranks, with nothing lost.

`ray drain-node` and the autoscaler's preemption notices name a host and a deadline. Before it
passes every rank saves and leaves after the same step, and the group starts again elsewhere.
When the launcher itself is told to end, the ranks save and leave in the same way, for good.
"""

import time
from collections import defaultdict
from typing import Any

import ray
import ray.train.collective
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.context import get_train_context
from ray.train.v2.api.preemption import PreemptionInfo

from orchestrator.errors import OrchestratorError
from orchestrator.events import EventLog

_LOOK_EVERY_S = 1.0
# All ranks meet for it, which costs milliseconds; deadlines are half a minute and more.
_ASK_EVERY_S = 2.0
# In Ray Train's notice, which has room for nodes only: no node, but the launch itself.
_LAUNCH = "launch"


class HostIsDrained(OrchestratorError):
    """The group has saved and must run elsewhere; `rank` is the first one on a host that goes away."""

    def __init__(self, rank: int, step: int):
        super().__init__(rank, step)
        self.rank, self.step = rank, step

    def __str__(self) -> str:
        return f"the host of rank {self.rank} is being drained; saved at step {self.step}"


class LaunchEnds(OrchestratorError):
    """The launcher was told to end; every rank has saved. Example: Ctrl-C, or SIGTERM from a job manager."""

    def __init__(self, step: int):
        super().__init__(step)
        self.step = step

    def __str__(self) -> str:
        return f"the launch ends; saved at step {self.step}"


def draining_nodes() -> dict[str, int]:
    """Ids of Ray's nodes that are being drained, with the deadline in unix milliseconds (0: none)."""
    return ray._private.state.state.get_draining_nodes()


class DrainWatch(WorkerGroupCallback):
    """Tells every rank when a host of the group is drained or the launch ends; lives in the controller.

    Ray Train's own watcher does the same, in an actor for which every generation would pay
    with the start of a process.
    """

    def __init__(self, events: EventLog):
        self._events = events
        self._workers: list[Any] = []
        self._ranks_on: dict[str, list[int]] = {}
        self._told: dict[str, int] = {}
        self._next_look = 0.0

    def after_worker_group_start(self, worker_group: Any) -> None:
        self._workers = worker_group.get_workers()
        self._told = {}
        ranks_on = defaultdict(list)
        for rank, worker in enumerate(self._workers):
            ranks_on[worker.metadata.node_id].append(rank)
        self._ranks_on = dict(ranks_on)

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        now = time.monotonic()
        if worker_group_status.errors or now < self._next_look:
            return
        self._next_look = now + _LOOK_EVERY_S
        drained = {node: by for node, by in draining_nodes().items() if node in self._ranks_on}
        if drained and drained != self._told:
            self._told = drained
            self._tell(drained)

    def before_worker_group_shutdown(self, worker_group: Any) -> None:
        self._workers = []

    def tell_to_leave(self) -> bool:
        """Tell all ranks that the launch ends; whether there are any."""
        if self._workers:
            self._events.emit("leaving", ranks=len(self._workers))
            self._notify(PreemptionInfo(None, {_LAUNCH: list(range(len(self._workers)))}))
        return bool(self._workers)

    def _tell(self, drained: dict[str, int]) -> None:
        ranks = sorted(rank for node in drained for rank in self._ranks_on[node])
        hosts = sorted({self._workers[rank].metadata.node_ip for rank in ranks})
        deadline_ms = min((by for by in drained.values() if by), default=None)
        left_s = None if deadline_ms is None else round(deadline_ms / 1000 - time.time(), 1)
        self._events.emit("drain_noticed", hosts=hosts, ranks=ranks, left_s=left_s)
        self._notify(PreemptionInfo(deadline_ms, {node: self._ranks_on[node] for node in drained}))

    def _notify(self, notice: PreemptionInfo) -> None:
        for worker in self._workers:
            worker.actor.mark_preempt.remote(notice)


class DrainNotice:
    """Whether to leave, asked every few seconds by all ranks together: the others follow rank 0.

    Asked alone, a rank could leave a step before the others, which would wait for it for ever.
    """

    def __init__(self, rank: int):
        self._rank = rank
        self._every = 1
        self._next = 0
        self._asked: tuple[int, float] | None = None
        self._ranks: list[int] = []
        self._for_good = False

    def due(self, step: int) -> bool:
        """Whether the group shall save and leave after `step` global steps; the same on every rank."""
        if step >= self._next:
            plan = self._plan(step) if self._rank == 0 else None
            self._ranks, self._for_good, self._next = ray.train.collective.broadcast_from_rank_zero(plan)
        return bool(self._ranks)

    def leave(self, step: int) -> None:
        """End this rank, once the save after `step` is on disk: raises HostIsDrained or LaunchEnds."""
        get_train_context().checkpoint_upload_threadpool.shutdown()
        ray.train.collective.barrier()
        if self._for_good:
            raise LaunchEnds(step)
        raise HostIsDrained(self._ranks[0], step)

    def _plan(self, step: int) -> tuple[list[int], bool, int]:
        """On rank 0: the ranks that must go, whether for good, and the step to ask again after."""
        now = time.monotonic()
        if self._asked is not None:
            step_s = max((now - self._asked[1]) / max(step - self._asked[0], 1), 1e-6)
            # Steps are only handed to the device: at first they seem shorter than they are.
            self._every = max(1, min(2 * self._every, round(_ASK_EVERY_S / step_s)))
        self._asked = (step, now)
        notice = get_train_context().preemption_context.preemption_info
        if notice is None:
            return [], False, step + self._every
        return notice.preempted_ranks, _LAUNCH in notice.preempted_node_ids, step + self._every
