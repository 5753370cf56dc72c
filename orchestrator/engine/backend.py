"""MindSpore as a Ray Train backend, for functions that need only collectives:

    DataParallelTrainer(train_fn, backend_config=MindSporeConfig(), scaling_config=...)

This backend adds no recovery from failures; `MindSporeTrainer` does.
"""

import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeVar

from ray.train.backend import Backend, BackendConfig

from orchestrator.engine.config import MindSporeConfig
from orchestrator.engine.messages import GroupInfo
from orchestrator.engine.rank.start import describe_worker
from orchestrator.engine.start.answers import Workers
from orchestrator.engine.start.group import start_group

T = TypeVar("T")


class WorkerGroup(Workers, Protocol):
    """What Ray Train gives a backend."""

    def execute(self, function: Callable[..., T], /) -> list[T]:
        """Call a function on every worker; results by rank."""


class MindSporeBackend(Backend):
    """Lets every worker join one MindSpore group. The rank is Ray's world rank."""

    def on_start(self, worker_group: WorkerGroup, backend_config: BackendConfig) -> None:
        """Open the rendezvous on rank 0's host and join every rank to it."""
        assert isinstance(backend_config, MindSporeConfig)
        described = worker_group.execute(describe_worker)
        members = [replace(member, rank=rank) for rank, member in enumerate(described)]
        start_group(worker_group, members, backend_config, GroupInfo(group=uuid.uuid4().hex))

    def on_shutdown(self, worker_group: WorkerGroup, backend_config: BackendConfig) -> None:
        """No-op: Ray kills the workers, and the store or the scheduler ends with the worker of rank 0."""
