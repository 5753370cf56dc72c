"""`MindSporeConfig`: how MindSpore starts in the workers of a group."""

from dataclasses import dataclass, field
from pathlib import Path

from ray.train.backend import Backend, BackendConfig

from orchestrator.ascend.device_groups import Soc
from orchestrator.ascend.environment import (
    FAILURE_BUDGET_S,
    Collective,
    Device,
    Rendezvous,
    StatedHosts,
    StatedRendezvous,
    rendezvous_of,
)
from orchestrator.engine.options import StartOptions


@dataclass
class MindSporeConfig(BackendConfig):
    """How MindSpore starts; also a backend for Ray's own `DataParallelTrainer`.

    device: where tensors live. threads: CPU threads of each rank. The bytes of float32 results depend on this number,
    so the job sets it and it is never derived from the host. On CPU each rank is pinned to that many CPUs: request
    the same number from Ray, and set OMP_NUM_THREADS for the workers. start_timeout_s: how long the rendezvous may
    take. failure_budget_s: how long a silent rank may stall the group before MindSpore gives up.

    rendezvous: how ranks find each other. `auto` is a key-value store on CPU, and a dynamic cluster with a scheduler
    process on Ascend. A group of one rank has no rendezvous, and `mindspore.communication` stays uninitialised.

    Ascend only. soc: the chip. hosts: addresses of devices by host address and physical id, for hosts that cannot
    report them. collective: `mccl` rehearses an Ascend job on hosts without devices; ranks compute on the CPU.
    The ranks of each host also form a communicator of their own, named by `host_group_name`.

    directory: where the scheduler's log (`logs/`) and the rank tables (`plan/`) are written; None writes neither.
    run: mark of this run's processes. Left-over processes with this mark are killed; None kills none.
    preload: modules to import while the group starts.
    """

    device: Device = "cpu"
    threads: int = 1
    start_timeout_s: float = 120.0
    failure_budget_s: float = FAILURE_BUDGET_S
    soc: Soc = "910b"
    rendezvous: StatedRendezvous = "auto"
    hosts: StatedHosts = field(default_factory=dict)
    collective: Collective = "auto"
    directory: Path | None = None
    run: str | None = None
    preload: tuple[str, ...] = ()

    @property
    def resolved_rendezvous(self) -> Rendezvous:
        """The rendezvous, with `auto` resolved."""
        return rendezvous_of(self.rendezvous, self.device)

    @property
    def start_options(self) -> StartOptions:
        """The part of this configuration that the workers need."""
        log = None if self.directory is None else str(self.directory / "logs" / "scheduler.log")
        return StartOptions(
            device=self.device,
            threads=self.threads,
            collective=self.collective,
            rendezvous=self.resolved_rendezvous,
            start_timeout_s=self.start_timeout_s,
            failure_budget_s=self.failure_budget_s,
            soc=self.soc,
            scheduler_log=log,
            preload=self.preload,
        )

    @property
    def backend_cls(self) -> type[Backend]:
        """The backend for Ray's own trainer."""
        from orchestrator.engine.backend import MindSporeBackend

        return MindSporeBackend
