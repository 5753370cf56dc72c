"""Workers that wait with everything imported, so that the next generation of a group need not.

A restart spends most of its time on Ray's, Ray Train's and MindSpore's imports. So while a group
trains, as many more workers as it has on its fullest host are started on every host, and the next
generation takes them. They live as long as the controller, which owns them.
"""

import logging
import math
import time
from collections import Counter
from typing import Any

import ray
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.worker_group.worker import ActorMetadata, RayTrainWorker, Worker
from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup
from ray.util import placement_group_table
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.events import EventLog
from orchestrator.training.group import GroupWatch
from orchestrator.training.preload import preload

logger = logging.getLogger(__name__)

# A group that has just begun, or is almost done, needs the cores for itself.
_SETTLED_S = 5.0
# A standby that takes longer to say where it is has died, or its host has.
_ANSWER_S = 1.0
# Of this process, the controller: the standbys of each node, by its id.
_waiting: dict[str, list[Any]] = {}


class Standbys(WorkerGroupCallback):
    """Starts standbys once a group makes progress, and tells when they are ready."""

    def __init__(self, events: EventLog, watch: GroupWatch):
        self._events, self._watch = events, watch
        self._group: Any = None
        self._step, self._since = 0, 0.0
        self._preloading: list[Any] = []

    def after_worker_group_training_start(self, worker_group: Any) -> None:
        self._group, self._step, self._since = worker_group, self._watch.step, math.inf

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        now = time.monotonic()
        if self._watch.step > self._step:
            self._since = min(self._since, now)
        if self._group is not None and now >= self._since + _SETTLED_S:
            self._preloading = _start_missing(self._group)
            self._group = None
        if self._preloading:
            ready, _ = ray.wait(self._preloading, num_returns=len(self._preloading), timeout=0)
            if len(ready) == len(self._preloading):
                self._events.emit("standbys_ready", started=len(ready))
                self._preloading = []

    def before_worker_group_shutdown(self, worker_group: Any) -> None:
        self._group = None


class WarmWorkerGroup(WorkerGroup):
    """Ray Train's group of workers, begun with the standbys of the hosts where it was placed."""

    def _create_workers(
        self, num_workers: int, placement_group: Any, resources_per_worker: dict[str, float],
        placement_group_bundle_indices: list[int] | None = None, starting_world_rank: int = 0,
        world_size: int | None = None, replica_group_size: int | None = None,
    ) -> list[Worker]:  # fmt: skip
        indices = placement_group_bundle_indices or list(range(num_workers))
        node_of = placement_group_table(placement_group)["bundles_to_node_id"]
        warm = {index: found for index in indices if (found := _take_standby(node_of[index]))}
        workers = [
            Worker(actor, place, resources_per_worker, placement_group_bundle_index=index)
            for index, (actor, place) in warm.items()
        ]
        cold = [index for index in indices if index not in warm]
        if cold:
            workers += super()._create_workers(len(cold), placement_group, resources_per_worker, cold)
        return self._assign_worker_ranks(workers, starting_world_rank, world_size, replica_group_size)


def _start_missing(group: WorkerGroup) -> list[Any]:
    """Start what each living host misses; returns references that are ready when they are."""
    runtime_env = group._get_worker_runtime_env(group._train_run_context.run_config.worker_runtime_env)
    ranks_on = Counter(worker.metadata.node_ip for worker in group.get_workers())
    preloading = []
    for node in ray.nodes():
        if node["Alive"]:
            there = _waiting.setdefault(node["NodeID"], [])
            missing = max(ranks_on.values()) - len(there)
            started = [_start(node["NodeID"], runtime_env) for _ in range(missing)]
            there += started
            preloading += [actor.execute.remote(preload) for actor in started]
    return preloading


def _start(node_id: str, runtime_env: dict[str, Any]) -> Any:
    here = NodeAffinitySchedulingStrategy(node_id, soft=False)
    # Its cores are those of the rank it will replace; until then it only waits.
    standby = ray.remote(num_cpus=0, runtime_env=runtime_env, scheduling_strategy=here)(RayTrainWorker)
    return standby.remote()


def _take_standby(node_id: str) -> tuple[Any, ActorMetadata] | None:
    """A standby of the node that is ready now, if there is one."""
    waiting = _waiting.get(node_id, [])
    while waiting:
        actor = waiting.pop(0)
        try:
            return actor, ray.get(actor.get_metadata.remote(), timeout=_ANSWER_S)
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as error:
            logger.warning("a standby on node %s is of no use: %s", node_id, error)
            ray.kill(actor)
    return None
