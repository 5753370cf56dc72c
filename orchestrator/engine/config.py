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

    device: where tensors live. threads: CPU threads of each rank. The bytes of float32 results depend on it, so it
    is stated and not taken from the host. On CPU each rank is pinned to as many CPUs; ask Ray for as many, and set
    OMP_NUM_THREADS for the workers. start_timeout_s: how long the rendezvous may take. failure_budget_s: how long a
    silent rank may stall the group before MindSpore gives up.

    rendezvous: how ranks find each other. `auto` is a store on CPU, and on Ascend a dynamic cluster with a scheduler
    process. A group of one rank needs none, and `mindspore.communication` stays uninitialised.

    Ascend only. soc: the chip. hosts: addresses of devices by host address and physical id, for hosts that cannot
    report them. collective: `mccl` rehearses an Ascend job on hosts without devices: ranks compute on the CPU.
    Ranks of one host also form a communicator, named by `host_group_name`.

    directory: where the scheduler's log (`logs/`) and the rank tables (`plan/`) go; None keeps neither.
    run: the run that processes on the hosts belong to; None leaves what an earlier run left there.
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
        """What the workers need of it."""
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
