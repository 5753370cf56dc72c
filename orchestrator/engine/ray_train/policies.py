"""Ray Train's two policies, for failures and for the size of the group. Our controller makes both decisions."""

import ray
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.failure_handling import FailureDecision, FailurePolicy
from ray.train.v2._internal.execution.scaling_policy import (
    NoopDecision,
    ResizeDecision,
    ScalingDecision,
    ScalingPolicy,
)
from ray.train.v2._internal.execution.worker_group import WorkerGroupPollStatus, WorkerGroupState
from ray.train.v2.api.config import FailureConfig, ScalingConfig
from ray.train.v2.api.exceptions import TrainingFailedError

from orchestrator.engine.control.group import GroupControl
from orchestrator.engine.control.policy import Decision
from orchestrator.engine.control.ports import Clock, Cluster
from orchestrator.engine.control.size import Growth, RankNeeds, room_of
from orchestrator.engine.ray_train.classify import classify, is_stop
from orchestrator.telemetry.events import GroupRestarting

_LOOK_EVERY_S = 1.0


class ControlledFailures(FailurePolicy):
    """Hands every failure to the controller's decisions."""

    def __init__(self, control: GroupControl):
        super().__init__(FailureConfig())
        self._control = control

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        """See Ray Train's `FailurePolicy`."""
        if is_stop(training_failed_error):
            return FailureDecision.RAISE
        decision = self._control.failed(classify(training_failed_error))
        return FailureDecision.RETRY if decision is Decision.RESUME else FailureDecision.RAISE


class GroupSize(ScalingPolicy):
    """The number of ranks: fixed, or as many as the hosts have room for, between a minimum and a maximum.

    Ray Train's own elastic policy asks an actor that updates its view of the cluster every 20 s. After a host is lost,
    a group would start at its old size and wait a minute for that host. This policy counts the hosts itself.
    """

    def __init__(
        self,
        scaling_config: ScalingConfig,
        needs: RankNeeds,
        control: GroupControl,
        cluster: Cluster,
        clock: Clock,
    ):
        super().__init__(scaling_config)
        self._needs, self._control, self._cluster, self._clock = needs, control, cluster, clock
        self._growth = Growth(scaling_config.max_workers)

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        """No request to Ray's autoscaling coordinator: the placement group is the request."""

    async def before_controller_shutdown(self) -> None:
        """No request to withdraw."""

    def before_controller_abort(self) -> None:
        """No request to withdraw."""

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Start with as many ranks as there is room for; wait while there are too few hosts."""
        config = self.scaling_config
        if not config.elasticity_enabled:
            return self._resize(config.max_workers)
        size = min(self._room(), config.max_workers)
        if size < config.min_workers:
            self._clock.wait(_LOOK_EVERY_S)
            return NoopDecision()
        return self._resize(size)

    def make_decision_for_running_worker_group(
        self, worker_group_state: WorkerGroupState, worker_group_status: WorkerGroupPollStatus
    ) -> ScalingDecision:
        """Grow an elastic group right after a checkpoint."""
        if not self.scaling_config.elasticity_enabled:
            return NoopDecision()
        generation = self._control.generation
        size = self._growth.grown_size(generation.world_size, generation.saved, self._room)
        if size is None:
            return NoopDecision()
        self._control.record(
            GroupRestarting(reason=f"a host came back: {generation.world_size} -> {size} ranks")
        )
        return self._resize(size)

    def _room(self) -> int:
        """How many ranks the living hosts have room for, without hosts that are being drained."""
        draining = self._cluster.draining()
        hosts = [
            node["Resources"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in draining
        ]
        return room_of(hosts, self._needs)

    def _resize(self, size: int) -> ResizeDecision:
        return ResizeDecision(num_workers=size, resources_per_worker=dict(self._needs.resources))

    def _get_num_workers_for_resource_request(self) -> int:
        return self.scaling_config.max_workers
