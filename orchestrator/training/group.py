"""What the controller of a training group does beside Ray Train: tells, and decides after failures.

Runs inside Ray Train's controller actor, never in a worker.
"""

import logging
from typing import Any

import ray
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.failure_handling import FailureDecision, FailurePolicy

from orchestrator.events import EventLog

logger = logging.getLogger(__name__)


class GroupEvents(WorkerGroupCallback):
    """Writes the life of each generation of the group to events.jsonl."""

    def __init__(self, events: EventLog, generation: int):
        self._events = events
        self._generation = generation

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        self._generation += 1
        self._events.emit(
            "group_starting", generation=self._generation, world_size=worker_group_context.num_workers
        )

    def after_worker_group_start(self, worker_group: Any) -> None:
        workers = worker_group.get_workers()
        for worker in workers:
            place = worker.metadata
            rank = worker.distributed_context.world_rank
            self._events.emit("rank_joined", rank=rank, host=place.node_ip, pid=place.pid)
        hosts = sorted({worker.metadata.node_ip for worker in workers})
        self._events.emit("group_started", generation=self._generation, world_size=len(workers), hosts=hosts)
