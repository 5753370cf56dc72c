"""MindSpore as a Ray Train backend: `MindSporeConfig` beside Ray's TorchConfig and JaxConfig.

    DataParallelTrainer(train_fn, backend_config=MindSporeConfig(), scaling_config=...)

makes any function that uses MindSpore's collectives run data-parallel: when it is called,
`mindspore.communication` is initialised on every worker and the rank is Ray's world rank.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig

from orchestrator.ascend.device_groups import Soc
from orchestrator.ascend.environment import FAILURE_BUDGET_S, Device, Rendezvous, rank_environment
from orchestrator.errors import OrchestratorError
from orchestrator.training.scheduler import Scheduler, start_scheduler

logger = logging.getLogger(__name__)

# The scheduler that this process owns; only rank 0's worker has one.
_scheduler: Scheduler | None = None


class RanksDidNotJoin(OrchestratorError):
    """Some ranks never met the others. Example: a host lost its link between start and rendezvous."""

    def __init__(self, ranks: tuple[int, ...], hosts: tuple[str, ...], timeout_s: float):
        super().__init__(ranks, hosts, timeout_s)
        self.ranks, self.hosts, self.timeout_s = ranks, hosts, timeout_s

    def __str__(self) -> str:
        return (
            f"ranks {list(self.ranks)} on {', '.join(sorted(set(self.hosts)))} did not join the group within "
            f"{self.timeout_s:.0f} s; look at those hosts with `sdnet-orchestrate check`"
        )


@dataclass
class MindSporeConfig(BackendConfig):
    """How MindSpore starts in the workers of one group.

    device: where tensors live. threads: CPU threads of each rank; the bytes of float32
    results depend on it, so it is stated and not inherited from the host.
    start_timeout_s: how long the ranks may take to find each other.
    failure_budget_s: how long a silent peer may stall the group before MindSpore gives up.
    log_directory: where the scheduler's output goes; None discards it.

    A group of one worker has nobody to meet: no scheduler is started, and
    `mindspore.communication` stays uninitialised.
    """

    device: Device = "cpu"
    soc: Soc = "910b"
    rendezvous: Rendezvous = "dynamic_cluster"
    rank_table_path: str | None = None
    threads: int = 1
    start_timeout_s: float = 120.0
    failure_budget_s: float = FAILURE_BUDGET_S
    log_directory: str | None = None

    @property
    def backend_cls(self) -> type[Backend]:
        return MindSporeBackend


class MindSporeBackend(Backend):
    """Starts the scheduler on rank 0's host and joins every rank to it."""

    def on_start(self, worker_group: Any, backend_config: MindSporeConfig) -> None:
        seats = worker_group.execute(describe_seat)
        address = None
        if len(seats) > 1:
            for rank in range(1, len(seats)):
                worker_group.execute_single_async(rank, preload)
            address = worker_group.execute_single(0, open_rendezvous, len(seats), backend_config)
        joins = [
            worker_group.execute_single_async(
                rank, join_group, environment_of(rank, seats, address, backend_config), backend_config
            )
            for rank in range(len(seats))
        ]
        _wait_for_all(joins, seats, backend_config.start_timeout_s)

    def on_shutdown(self, worker_group: Any, backend_config: MindSporeConfig) -> None:
        """Nothing to ask of workers that may hang: they are killed, the scheduler with rank 0's."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Where one worker runs: its host's address, and the physical ids of its NPUs."""

    host: str
    npus: tuple[int, ...]


def describe_seat() -> Seat:
    """On a worker: its seat, as Ray has placed it."""
    npus = ray.get_runtime_context().get_accelerator_ids().get("NPU", [])
    return Seat(ray.util.get_node_ip_address(), tuple(int(npu) for npu in npus))


def environment_of(
    rank: int, seats: list[Seat], address: tuple[str, int] | None, config: MindSporeConfig
) -> dict[str, str]:
    """What MindSpore reads in the worker of this rank; without an address there is no cluster to join."""
    hosts = [seat.host for seat in seats]
    npus = seats[rank].npus
    scheduler_host, scheduler_port = address or (hosts[rank], 1)
    environment = rank_environment(
        rank=rank,
        local_rank=hosts[:rank].count(hosts[rank]),
        world_size=len(seats),
        scheduler_host=scheduler_host,
        scheduler_port=scheduler_port,
        device=config.device,
        rendezvous=config.rendezvous,
        threads=config.threads,
        failure_budget_s=config.failure_budget_s,
        soc=config.soc,
        device_id=npus[0] if npus else None,
        visible_devices=npus,
        rank_table_path=config.rank_table_path,
    )
    if address is None:
        return {name: value for name, value in environment.items() if not name.startswith("MS_")}
    return environment


def open_rendezvous(world_size: int, config: MindSporeConfig) -> tuple[str, int]:
    """On rank 0's worker: start the group's scheduler and say where it listens."""
    global _scheduler
    log_path = str(Path(config.log_directory, "scheduler.log")) if config.log_directory else None
    _scheduler = start_scheduler(
        ray.util.get_node_ip_address(),
        world_size,
        timeout_s=config.start_timeout_s,
        failure_budget_s=config.failure_budget_s,
        soc=config.soc,
        log_path=log_path,
        meanwhile=preload,
    )
    return _scheduler.host, _scheduler.port


def preload() -> None:
    """On a worker: import what takes seconds while the scheduler, another process, does the same."""
    import mindspore  # noqa: F401


def scheduler_lost() -> bool:
    """On a worker: whether this process started a scheduler that no longer lives."""
    return _scheduler is not None and not _scheduler.alive


def join_group(environment: dict[str, str], config: MindSporeConfig) -> None:
    """On every worker: enter the group. Must come before anything else touches the device."""
    os.environ.update(environment)
    import mindspore

    mindspore.set_device("CPU" if config.device == "cpu" else "Ascend")
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    mindspore.runtime.dispatch_threads_num(config.threads)
    if int(environment["RANK_SIZE"]) > 1:
        mindspore.communication.init()


def _wait_for_all(joins: list[Any], seats: list[Seat], timeout_s: float) -> None:
    done, waiting = ray.wait(joins, num_returns=len(joins), timeout=timeout_s)
    ray.get(done)  # raises what a rank raised, or that its worker died
    if waiting:
        ranks = tuple(rank for rank, join in enumerate(joins) if join in waiting)
        raise RanksDidNotJoin(ranks, tuple(seats[rank].host for rank in ranks), timeout_s)
