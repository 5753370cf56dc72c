"""Ray Train's group of workers with standbys, a limit of ranks on each host, and a clean failed start."""

import logging
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import ray
from ray.actor import ActorHandle
from ray.runtime_env import RuntimeEnv
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution.callback import (
    TrainContextCallback,
    WorkerCallback,
    WorkerGroupCallback,
)
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.worker_group.placement_group_handle import PlacementGroupHandle
from ray.train.v2._internal.execution.worker_group.state import WorkerGroupContext
from ray.train.v2._internal.execution.worker_group.worker import ActorMetadata, RayTrainWorker, Worker
from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup
from ray.train.v2.api.config import ScalingConfig
from ray.util import placement_group_table
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.engine.control.ports import Clock
from orchestrator.engine.control.size import RankNeeds, assign
from orchestrator.engine.rank.start import preload
from orchestrator.engine.ray_train.free_hosts import asking_hosts_for_news
from orchestrator.engine.ray_train.ray_core import NODE_ID_LABEL, draining_nodes

logger = logging.getLogger(__name__)

# If a standby takes longer to answer, we assume that it or its host has died.
_ANSWER_S = 1.0
# How long a group waits for hosts with room, when the ranks on each host are limited.
_ROOM_S = 60.0
_LOOK_EVERY_S = 1.0

Standby = ActorHandle[RayTrainWorker]
Callbacks = list[WorkerGroupCallback | WorkerCallback | TrainContextCallback]


class StandbyWorkers:
    """Standby workers on every host, owned by the controller. modules: those to import in addition to the engine."""

    def __init__(self, modules: tuple[str, ...]):
        self._modules = modules
        self._waiting: dict[str, list[Standby]] = {}
        self._preloading: list[ray.ObjectRef[None]] = []
        self._group: WorkerGroup | None = None

    def stand_by_for(self, group: WorkerGroup) -> None:
        """Start the next standbys for this group: with its environment, and as many as its fullest host has ranks."""
        self._group = group

    def start_missing(self) -> None:
        """See `control.standbys.StandbyPool`."""
        group = self._group
        if group is None:
            return
        runtime_env = group._get_worker_runtime_env(
            group._train_run_context.run_config.worker_runtime_env or {}
        )
        most = max(Counter(worker.metadata.node_ip for worker in group.get_workers()).values())
        for node in ray.nodes():
            if node["Alive"]:
                there = self._waiting.setdefault(node["NodeID"], [])
                started = [_start(node["NodeID"], runtime_env) for _ in range(most - len(there))]
                there += started
                self._preloading += [actor.execute.remote(preload, self._modules) for actor in started]

    def newly_ready(self) -> int:
        """See `control.standbys.StandbyPool`."""
        number = len(self._preloading)
        ready, _ = ray.wait(self._preloading, num_returns=number, timeout=0) if number else ([], [])
        if len(ready) < number:
            return 0
        self._preloading = []
        return number

    def take(self, node_id: str) -> tuple[Standby, ActorMetadata] | None:
        """A standby of the node that answers now, if there is one."""
        waiting = self._waiting.get(node_id, [])
        while waiting:
            actor = waiting.pop(0)
            try:
                place: ray.ObjectRef[ActorMetadata] = actor.get_metadata.remote()
                return actor, ray.get(place, timeout=_ANSWER_S)
            except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as error:
                logger.warning("a standby on node %s does not answer: %s", node_id, error)
                ray.kill(actor)
        return None


class ControlledWorkers(WorkerGroup):
    """The workers of one generation. Ray Train makes each from the class that `workers_class` returns."""

    _pool: ClassVar[StandbyWorkers | None]
    _needs: ClassVar[RankNeeds]
    _clock: ClassVar[Clock]

    def __init__(
        self,
        train_run_context: TrainRunContext,
        worker_group_context: WorkerGroupContext,
        callbacks: Callbacks | None = None,
    ):
        super().__init__(train_run_context, worker_group_context, callbacks)
        self._has_hosts = threading.Event()

    def _start(self) -> None:
        """Ray Train 2.60 cleans up a failed start only until the workers know their ranks.

        A later failure would leave processes and their placement group behind, and the next generation would wait for
        their resources for ever.
        """
        try:
            with asking_hosts_for_news(self._has_hosts):
                super()._start()
        except Exception:
            if self.has_started():
                self.shutdown()
            raise

    def _create_placement_group(
        self, scaling_config: ScalingConfig, worker_group_context: WorkerGroupContext
    ) -> PlacementGroupHandle:
        """With a limit for each host, name the host of every bundle: placement groups know no such limit."""
        if self._needs.per_host is not None:
            nodes = self._nodes_with_room(worker_group_context.num_workers)
            selector = [{NODE_ID_LABEL: node} for node in nodes]
            worker_group_context = replace(worker_group_context, label_selector=selector)
        return super()._create_placement_group(scaling_config, worker_group_context)

    def _nodes_with_room(self, num_workers: int) -> Sequence[str]:
        """A node for each worker, without drained hosts: Ray reports them as alive but places nothing there."""
        deadline = self._clock.now() + _ROOM_S
        while True:
            draining = draining_nodes()
            nodes = sorted(
                (node["NodeManagerAddress"], node["NodeID"], node["Resources"])
                for node in ray.nodes()
                if node["Alive"] and node["NodeID"] not in draining
            )
            places = assign({node_id: has for _, node_id, has in nodes}, self._needs, num_workers)
            if places is not None:
                return places
            if self._clock.now() >= deadline:
                raise WorkerGroupStartupTimeoutError(num_workers)
            self._clock.wait(_LOOK_EVERY_S)

    def _create_workers(
        self,
        num_workers: int,
        placement_group: PlacementGroup,
        resources_per_worker: dict[str, float],
        placement_group_bundle_indices: list[int] | None = None,
        starting_world_rank: int = 0,
        world_size: int | None = None,
        replica_group_size: int | None = None,
    ) -> list[Worker]:
        """Take the standbys of the hosts where the group was placed, and start the rest."""
        self._has_hosts.set()
        indices = placement_group_bundle_indices or list(range(num_workers))
        node_of = placement_group_table(placement_group)["bundles_to_node_id"]
        take = (lambda node: None) if self._pool is None else self._pool.take
        warm = {index: found for index in indices if (found := take(node_of[index])) is not None}
        workers = [
            Worker(actor, place, resources_per_worker, placement_group_bundle_index=index)
            for index, (actor, place) in warm.items()
        ]
        cold = [index for index in indices if index not in warm]
        if cold:
            workers += super()._create_workers(len(cold), placement_group, resources_per_worker, cold)
        return self._assign_worker_ranks(workers, starting_world_rank, world_size, replica_group_size)


def workers_class(pool: StandbyWorkers | None, needs: RankNeeds, clock: Clock) -> type[ControlledWorkers]:
    """The class from which Ray Train makes the groups of one controller. Ray Train accepts only a class there."""

    class WorkersOfController(ControlledWorkers):
        _pool, _needs, _clock = pool, needs, clock

    return WorkersOfController


def _start(node_id: str, runtime_env: dict[str, object] | RuntimeEnv) -> Standby:
    here = NodeAffinitySchedulingStrategy(node_id, soft=False)
    # A standby requests no CPUs, because it only waits. Later it uses the CPUs of the rank that it replaces.
    waiting = ray.remote(RayTrainWorker).options(
        num_cpus=0, runtime_env=runtime_env, scheduling_strategy=here
    )
    standby = waiting.remote()
    assert isinstance(standby, ActorHandle)
    return standby
