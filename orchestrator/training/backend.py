"""MindSpore as a Ray Train backend: `MindSporeConfig` beside Ray's TorchConfig and JaxConfig.

    DataParallelTrainer(train_fn, backend_config=MindSporeConfig(), scaling_config=...)

makes any function that uses MindSpore's collectives run data-parallel: when it is called,
`mindspore.communication` is initialised on every worker and the rank is Ray's world rank.
"""

import contextlib
import logging
import os
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig

from orchestrator.ascend.device_groups import Soc
from orchestrator.ascend.environment import (
    FAILURE_BUDGET_S,
    Collective,
    Device,
    Rendezvous,
    StatedRendezvous,
    rank_environment,
    rendezvous_of,
)
from orchestrator.run_directory import RunDirectory
from orchestrator.training.ascend_start import (
    AscendStart,
    HostShare,
    StatedHosts,
    host_group_name,
    prepare_ascend,
)
from orchestrator.training.cpus import bind_process, compute_on, limit_kernels
from orchestrator.training.preload import preload
from orchestrator.training.scheduler import Scheduler, start_scheduler
from orchestrator.training.seats import Seat, answers_of, describe_seat
from orchestrator.training.store import meet, open_store
from orchestrator.training.wakeful import wakeful

logger = logging.getLogger(__name__)

# The scheduler that this process owns; only rank 0's worker has one.
_scheduler: Scheduler | None = None


@dataclass
class MindSporeConfig(BackendConfig):
    """How MindSpore starts in the workers of one group.

    device: where tensors live. threads: CPU threads of each rank; the bytes of float32
    results depend on it, so it is stated and not inherited from the host. On CPU a rank is held
    to as many CPUs (`training/cpus.py`); ask Ray for as many, and set OMP_NUM_THREADS for the workers.
    start_timeout_s: how long the ranks may take to find each other.
    failure_budget_s: how long a silent peer may stall the group before MindSpore gives up.
    run: where the scheduler's log and, on Ascend, the rank tables go; None keeps neither.

    rendezvous: how ranks meet; `auto` is a store on CPU and a dynamic cluster, with a scheduler
    process, on Ascend. A group of one worker has nobody to meet: neither is started, and
    `mindspore.communication` stays uninitialised.

    Ascend only. soc: the chip. hosts: addresses of devices by host
    address and physical id, for hosts that cannot tell. collective: `mccl` rehearses all but
    the call into HCCL on hosts without devices: ranks then compute on the CPU. Ranks that share
    a host also form a communicator of their own, named by `host_group_name`.
    """

    device: Device = "cpu"
    threads: int = 1
    start_timeout_s: float = 120.0
    failure_budget_s: float = FAILURE_BUDGET_S
    run: RunDirectory | None = None
    soc: Soc = "910b"
    rendezvous: StatedRendezvous = "auto"
    hosts: StatedHosts = field(default_factory=dict)
    collective: Collective = "auto"

    @property
    def meets_by(self) -> Rendezvous:
        return rendezvous_of(self.rendezvous, self.device)

    @property
    def backend_cls(self) -> type[Backend]:
        return MindSporeBackend


class MindSporeBackend(Backend):
    """Opens the rendezvous, store or scheduler, on rank 0's host and joins every rank to it."""

    def on_start(self, worker_group: Any, backend_config: MindSporeConfig) -> None:
        config = backend_config
        seats = worker_group.execute(describe_seat)
        start = None
        if config.device == "ascend":
            start = prepare_ascend(
                worker_group, seats, soc=config.soc, stated=config.hosts, run=config.run,
                timeout_s=config.start_timeout_s,
            )  # fmt: skip
        address = None
        if len(seats) > 1 and config.meets_by != "rank_table":
            others = {rank: worker_group.execute_single_async(rank, preload) for rank in range(1, len(seats))}
            address = worker_group.execute_single(0, open_rendezvous, len(seats), config)
            # They enter together: a rank that has entered waits only seconds for each of the others.
            answers_of(others, seats, config.start_timeout_s)
        joins = {
            rank: worker_group.execute_single_async(
                rank,
                join_group,
                environment_of(rank, seats, address, start, config),
                address,
                None if start is None else start.shares[rank],
                config,
            )
            for rank in range(len(seats))
        }
        answers_of(joins, seats, config.start_timeout_s)

    def on_shutdown(self, worker_group: Any, backend_config: MindSporeConfig) -> None:
        """Nothing to ask of workers that may hang: they are killed, the scheduler with rank 0's."""


def environment_of(
    rank: int,
    seats: list[Seat],
    address: tuple[str, int] | None,
    start: AscendStart | None,
    config: MindSporeConfig,
) -> dict[str, str]:
    """What MindSpore reads in the worker of this rank; address: of the rendezvous, if there is one."""
    hosts = [seat.host for seat in seats]
    npus = seats[rank].npus
    scheduler_host, scheduler_port = address or (hosts[rank], 1)
    return rank_environment(
        rank=rank,
        local_rank=hosts[:rank].count(hosts[rank]),
        world_size=len(seats),
        scheduler_host=scheduler_host,
        scheduler_port=scheduler_port,
        device=config.device,
        rendezvous=config.meets_by,
        threads=config.threads,
        failure_budget_s=config.failure_budget_s,
        soc=config.soc,
        device_id=npus[0] if npus else None,
        visible_devices=npus,
        rank_table_path=None if start is None else start.rank_table_path,
    )


def open_rendezvous(world_size: int, config: MindSporeConfig) -> tuple[str, int]:
    """On rank 0's worker: open the group's store, or start its scheduler, and say where it listens."""
    global _scheduler
    host = ray.util.get_node_ip_address()
    if config.meets_by == "store":
        preload()
        return open_store(host, world_size, config.start_timeout_s)
    log_path = None if config.run is None else str(config.run.logs / "scheduler.log")
    _scheduler = start_scheduler(
        host,
        world_size,
        timeout_s=config.start_timeout_s,
        failure_budget_s=config.failure_budget_s,
        soc=config.soc,
        log_path=log_path,
        meanwhile=preload,
    )
    return _scheduler.host, _scheduler.port


def scheduler_lost() -> bool:
    """On a worker: whether this process started a scheduler that no longer lives."""
    return _scheduler is not None and not _scheduler.alive


def join_group(
    environment: dict[str, str],
    address: tuple[str, int] | None,
    share: HostShare | None,
    config: MindSporeConfig,
) -> None:
    """On every worker: enter the group. Must come before anything else touches the device."""
    os.environ.update(environment)
    import mindspore

    on_device = config.device == "ascend" and config.collective == "auto"
    mindspore.set_device("Ascend" if on_device else "CPU")
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    rank, world_size = int(environment["RANK_ID"]), int(environment["RANK_SIZE"])
    if world_size > 1:
        # On Ascend HCCL does the waiting, and nobody has looked at what a signal does to that.
        with contextlib.nullcontext() if on_device else wakeful():
            if config.meets_by == "store" and address is not None:
                meet(address, rank, world_size, config.start_timeout_s)
            else:
                mindspore.communication.init()
        if share is not None and len(share.ranks) > 1:
            mindspore.communication.create_group(host_group_name(share.ranks[0]), list(share.ranks))
    _settle(share, config, on_device)


def _settle(share: HostShare | None, config: MindSporeConfig, on_device: bool) -> None:
    """Bind the process to its CPUs and MindSpore to its threads, before anything is computed.

    Not before the ranks have met: a thread of MindSpore's that connects must be a little faster than
    the one that hears of it, or it tries again, and on one CPU it may lose for seconds.
    """
    import mindspore

    if share is not None:
        bind_process(share.cpus)
    if on_device:
        mindspore.runtime.dispatch_threads_num(config.threads)
    elif share is None:
        compute_on(config.threads)
    else:
        limit_kernels(config.threads)
