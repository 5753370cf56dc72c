"""A subclass of Ray Train's controller with our decisions, and an event loop that is never blocked.

Ray Train's control loop calls policies, callbacks and blocking Ray functions in the actor's event loop. Here each
iteration runs in its own thread, so that `leave` is answered at once in every phase.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import ray
from ray.train.v2._internal.execution.callback import RayTrainCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.context import DistributedContext, TrainRunContext
from ray.train.v2._internal.execution.controller.controller import TrainController
from ray.train.v2._internal.execution.worker_group import WorkerGroupPollStatus
from ray.train.v2._internal.execution.worker_group.state import WorkerGroupContext
from ray.train.v2._internal.execution.worker_group.worker import Worker
from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup
from ray.train.v2._internal.util import ObjectRefWrapper
from ray.train.v2.api.config import ScalingConfig
from ray.train.v2.api.validation_config import ValidationConfig

from orchestrator.engine.config import MindSporeConfig
from orchestrator.engine.control.group import ControlSettings, GroupControl
from orchestrator.engine.control.rank_order import in_rank_order, local_ranks, numbered
from orchestrator.engine.control.size import RankNeeds
from orchestrator.engine.messages import GroupInfo
from orchestrator.engine.rank.start import describe_worker
from orchestrator.engine.ray_train.cluster import ControllerClock, RayCluster, RayRanks, ask
from orchestrator.engine.ray_train.policies import ControlledFailures, GroupSize
from orchestrator.engine.ray_train.workers import StandbyWorkers, workers_class
from orchestrator.engine.start.ascend import server_id_of_host
from orchestrator.engine.start.group import start_group
from orchestrator.storage import Lease, Storage
from orchestrator.telemetry.events import LeftoversEnded
from orchestrator.telemetry.record import EventWriter
from orchestrator.telemetry.state import read_state

_LOOK_EVERY_S = 0.1
# The first step may be newer than the last heartbeat. Two polls of Ray Train and an answer fit into this time.
_HEARTBEAT_WITHIN_S = 0.9
_DESCRIBE_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerSettings:
    """What the launcher passes to the controller. lease: of the launch. run: mark of the run's processes."""

    storage: Storage
    lease: Lease
    run: str
    control: ControlSettings
    needs: RankNeeds
    mindspore: MindSporeConfig
    standbys: bool


class GroupController(TrainController):
    """The actor that leads one launch's generations, one after another."""

    def __init__(
        self,
        *,
        settings: ControllerSettings,
        scaling_config: ScalingConfig,
        train_fn_ref: ObjectRefWrapper[Callable[[], None]],
        train_run_context: TrainRunContext,
        callbacks: list[RayTrainCallback],
        validation_config: ValidationConfig | None,
    ):
        self._clock = ControllerClock()
        lease = settings.lease
        self._writer = EventWriter(settings.storage, guard=lease.check, lease=lease.number)
        cluster = RayCluster(settings.storage, settings.run, self._clock)
        pool = StandbyWorkers(settings.mindspore.preload) if settings.standbys else None
        self._control = GroupControl(
            settings.control,
            replace(read_state(settings.storage, lease.number), lease=lease.number),
            clock=self._clock,
            cluster=cluster,
            storage=settings.storage,
            record=self._writer.record,
            pool=pool,
            check_owner=lease.check,
        )
        self.worker_group_cls = workers_class(pool, settings.needs, self._clock)
        self._steps = asyncio.new_event_loop()
        threading.Thread(target=self._steps.run_forever, name="control loop", daemon=True).start()
        super().__init__(
            train_fn_ref=train_fn_ref,
            train_run_context=train_run_context,
            scaling_policy=GroupSize(scaling_config, settings.needs, self._control, cluster, self._clock),
            failure_policy=ControlledFailures(self._control),
            callbacks=[GroupCallback(self._control, settings, pool, self._clock), *callbacks],
            validation_config=validation_config,
        )

    async def abort(self) -> None:
        """End the group without a save.

        Ray lets `run` continue until the process ends. Its loop may ask the group that is gone, again and again, and
        each answer would count as a failure.
        """
        self._control.abandoned = True
        await super().abort()

    async def _run_control_loop_iteration(self) -> None:
        if self._control.abandoned:
            await asyncio.sleep(_LOOK_EVERY_S)
            return
        iteration = super()._run_control_loop_iteration()
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(iteration, self._steps))

    async def run(self) -> None:
        """Lead the group to its end."""
        # `finished` and `close` write to storage, which may hang. In a thread they do not delay `leave`.
        # After a failure the ranks stay in the run's state, so that the next launch can kill the survivors.
        try:
            await super().run()
            if self.get_training_failed_error() is None and not self._control.abandoned:
                await asyncio.to_thread(self._control.finished)
        finally:
            await asyncio.to_thread(self._writer.close)

    async def ended_because(self) -> str | None:
        """See `GroupControl`."""
        return self._control.ended_because

    async def leave(self) -> bool:
        """Let the ranks save and end; returns True when they have ended.

        Returns False after at most a second if no rank has steps to save.
        """
        saving = self._control.leave()
        self._clock.stop()
        give_up = time.monotonic() + _HEARTBEAT_WITHIN_S
        while not saving and self._control.computes and time.monotonic() < give_up:
            await asyncio.sleep(_LOOK_EVERY_S)
            saving = self._control.leave()
        while saving and not self.get_state().is_terminal():
            await asyncio.sleep(_LOOK_EVERY_S)
        return saving


class GroupCallback(WorkerGroupCallback):
    """Calls our controller at each point of a generation's life, in the order that `control/group.py` states."""

    def __init__(
        self,
        control: GroupControl,
        settings: ControllerSettings,
        pool: StandbyWorkers | None,
        clock: ControllerClock,
    ):
        self._control, self._settings, self._pool, self._clock = control, settings, pool, clock

    def before_worker_group_start(self, worker_group_context: WorkerGroupContext) -> None:
        """Fence the last generation and begin the next."""
        self._control.starting(worker_group_context.num_workers)

    def before_init_train_context(self, workers: list[Worker]) -> dict[str, list[object]]:
        """Sort the workers, in place, before Ray Train assigns the ranks."""
        described = ray.get([ask(w, describe_worker) for w in workers], timeout=_DESCRIBE_S)
        order = in_rank_order(described, self._server_ids(workers))
        members = numbered([described[index] for index in order])
        workers[:] = [workers[index] for index in order]
        for worker, member, place in zip(workers, members, local_ranks(members), strict=True):
            worker.distributed_context = DistributedContext(
                world_rank=member.rank,
                world_size=len(members),
                local_rank=place.local_rank,
                local_world_size=place.local_world_size,
                node_rank=place.host_index,
            )
        self._control.placed(members)
        return {}

    def after_worker_group_start(self, worker_group: WorkerGroup) -> None:
        """Make the workers the ranks of a MindSpore group."""
        control, generation = self._control, self._control.generation
        failures, trained_s = control.failures_and_trained_s
        info = GroupInfo(
            group=f"{self._settings.run}#{generation.number}",
            generation=generation.number,
            avoid=control.avoid,
            saved=control.saved,
            failures=failures,
            trained_s=trained_s,
        )
        start = start_group(worker_group, generation.members, self._settings.mindspore, info)
        for host, pids in (start.ended if start else {}).items():
            control.record(LeftoversEnded(host=host, pids=pids))
        if self._pool is not None:
            self._pool.stand_by_for(worker_group)
        control.joined(RayRanks(worker_group.get_workers(), info.group, self._clock))

    def after_worker_group_poll_status(self, worker_group_status: WorkerGroupPollStatus) -> None:
        """Check the running ranks; if the poll has errors, the failure policy handles them instead."""
        if not worker_group_status.errors:
            self._control.tick()

    def before_worker_group_shutdown(self, worker_group: WorkerGroup) -> None:
        """Kill the ranks."""
        self._control.ended()

    def _server_ids(self, workers: list[Worker]) -> dict[str, str]:
        """HCCL's name of each host, by address. Only hosts of super pods (A3) have another name than their address."""
        config = self._settings.mindspore
        worker_on = {worker.metadata.node_ip: worker for worker in workers}
        if config.device != "ascend" or config.soc != "a3":
            return {address: address for address in worker_on}
        asked = [ask(w, server_id_of_host, host, config.hosts) for host, w in worker_on.items()]
        return dict(zip(worker_on, ray.get(asked, timeout=_DESCRIBE_S), strict=True))
