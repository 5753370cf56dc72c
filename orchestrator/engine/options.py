"""The options that a worker needs to become a rank. Does not import Ray, because `plan` uses it, too."""

from dataclasses import dataclass

from orchestrator.ascend.device_groups import Soc
from orchestrator.ascend.environment import FAILURE_BUDGET_S, Collective, Device, Rendezvous


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOptions:
    """The fields of `MindSporeConfig` that workers need; `rendezvous` is resolved, so never `auto`."""

    device: Device
    threads: int
    collective: Collective
    rendezvous: Rendezvous
    soc: Soc
    start_timeout_s: float = 120.0
    failure_budget_s: float = FAILURE_BUDGET_S
    scheduler_log: str | None = None
    preload: tuple[str, ...] = ()

    @property
    def on_device(self) -> bool:
        """Whether tensors live on an NPU; a rehearsal with mccl computes on the CPU."""
        return self.device == "ascend" and self.collective == "auto"
