"""`MindSporeConfig`: how MindSpore starts in the workers of a group."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from ray.train.backend import Backend, BackendConfig

from orchestrator.ascend.device_groups import SOCS, Soc
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
from orchestrator.errors import InputError

_KNOWN: dict[str, tuple[str, ...]] = {
    "device": get_args(Device),
    "soc": SOCS,
    "rendezvous": get_args(StatedRendezvous),
    "collective": get_args(Collective),
}


@dataclass
class MindSporeConfig(BackendConfig):
    """How MindSpore starts; also a backend for Ray's own `DataParallelTrainer`.

    device: where tensors live. threads: CPU threads of each rank. The bytes of float32 results depend on this number,
    so the job sets it and it is never derived from the host. On CPU each rank is pinned to that many CPUs: request
    the same number from Ray, and set OMP_NUM_THREADS for the workers. start_timeout_s: how long the rendezvous may
    take. failure_budget_s: how long a late or silent rank may stall the group before MindSpore gives up.
    `MindSporeTrainer` raises it to at least the longest wait that its watchdog allows.

    rendezvous: how ranks find each other. `auto` is a key-value store on CPU, and a dynamic cluster with a scheduler
    process on Ascend. A group of one rank has no rendezvous, and `mindspore.communication` stays uninitialised.

    Ascend only. soc: the chip. hosts: addresses of devices by host address and physical id, for hosts that cannot
    report them. collective: `mccl` rehearses an Ascend job on hosts without devices; ranks compute on the CPU.
    The ranks of each host also form a communicator of their own, named by `host_group_name`.

    directory: where the scheduler's log (`logs/`) and the rank tables (`plan/`) are written; None writes neither.
    run: mark of this run's processes. Left-over processes with this mark are killed; None kills none.
    preload: modules to import while the group starts.

    Raises InputError for a value that no field takes. Example: device "Ascend", with a capital letter.
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

    def __post_init__(self) -> None:
        for name, known in _KNOWN.items():
            value = getattr(self, name)
            if value not in known:
                raise InputError(f"mindspore_config {name} is {value!r}; use one of {', '.join(known)}")
        if not isinstance(self.threads, int) or self.threads is True or self.threads < 1:
            raise InputError(f"mindspore_config threads is {self.threads!r}; use a whole number from 1")
        for name in ("start_timeout_s", "failure_budget_s"):
            seconds = getattr(self, name)
            if (
                isinstance(seconds, bool)
                or not isinstance(seconds, int | float)
                or not 0 < seconds < math.inf
            ):
                raise InputError(f"mindspore_config {name} is {seconds!r}; use seconds above 0")
        if not isinstance(self.hosts, Mapping):
            raise InputError(f"mindspore_config hosts is a {type(self.hosts).__name__}; use a dictionary")
        if not isinstance(self.preload, tuple) or not all(isinstance(name, str) for name in self.preload):
            raise InputError(f"mindspore_config preload is {self.preload!r}; use a tuple of modules' names")

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
