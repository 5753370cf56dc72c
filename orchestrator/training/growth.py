"""The size of an elastic group: how many hosts are left, and when one that came back is taken in."""

import logging
import time
from typing import Any

import ray
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
    get_or_create_autoscaling_coordinator,
)
from ray.train import ScalingConfig
from ray.train.v2._internal.execution.scaling_policy import (
    ElasticScalingPolicy,
    NoopDecision,
    ResizeDecision,
    ScalingDecision,
)

from orchestrator.events import EventLog
from orchestrator.training.drain import draining_nodes

logger = logging.getLogger(__name__)

_COUNT_EVERY_S = 1.0
_COUNT_WITHIN_S = 5.0


class GrowsAtCheckpoints(ElasticScalingPolicy):
    """Ray Train's elastic scaling; a running group grows right after a checkpoint, and at no other time.

    Growing begins a new generation, so all that is not saved would be lost. A group that must
    shrink has failed, or is drained, and is the failure policy's business.
    """

    def __init__(self, scaling_config: ScalingConfig, events: EventLog):
        super().__init__(scaling_config)
        self._events = events
        self._next_count = 0.0

    def make_decision_for_running_worker_group(
        self, worker_group_state: Any, worker_group_status: Any
    ) -> ScalingDecision:
        self._maybe_send_resource_request()
        size, now = worker_group_state.num_workers, time.monotonic()
        # Rank 0 reports a checkpoint once it is on disk.
        report = worker_group_status.worker_statuses[0].training_report
        saved = report is not None and report.checkpoint is not None
        if not saved or size == self.scaling_config.max_workers or now < self._next_count:
            return NoopDecision()
        self._next_count = now + _COUNT_EVERY_S
        count_hosts_anew()
        decision = super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)
        if not isinstance(decision, ResizeDecision) or decision.num_workers <= size:
            return NoopDecision()
        self._events.emit(
            "group_restarting", reason=f"a host came back: {size} -> {decision.num_workers} ranks"
        )
        return decision

    def _count_possible_workers(self, reserved_resources: dict[str, Any]) -> int:
        """As Ray Train counts, without the hosts that are about to go away."""
        going = draining_nodes()
        staying = {node: has for node, has in reserved_resources.items() if node not in going}
        possible: int = super()._count_possible_workers(staying)
        return possible


def count_hosts_anew() -> None:
    """Let Ray Train's scaling see which hosts there are.

    It looks by itself every 20 s only; until then an elastic group starts at its old size and
    waits a minute for a host that is gone.
    """
    coordinator = get_or_create_autoscaling_coordinator()
    try:
        # Any requester may ask; the look at the cluster is what matters, not the answer.
        ray.get(coordinator.get_reserved_resources.remote("", recompute=True), timeout=_COUNT_WITHIN_S)
    except ray.exceptions.RayError as error:
        logger.warning("hosts were not counted anew (%s); an elastic group may start late", error)
