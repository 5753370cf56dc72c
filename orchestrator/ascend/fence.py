"""Which processes still hold devices, and which of them are left over from a run of ours.

A group may start again only on devices that nobody holds: HCCL otherwise fails with EJ0001
("maybe the last training process is running"). What is not ours is named and left alone.
"""

from collections.abc import Collection
from dataclasses import dataclass

import psutil

from orchestrator.ascend.npu_smi_table import DeviceProcess, NpuSmiInfo
from orchestrator.processes import still_running

# Ray workers and the scheduler of a run carry its directory in the environment they start with.
RUN_VARIABLE = "SDNET_RUN"
_RAYLET = "raylet"


@dataclass(frozen=True, slots=True)
class LeftOver:
    """A process of a run of ours that no Ray node owns any more."""

    pid: int
    name: str
    run: str


def holders_of(info: NpuSmiInfo, devices: Collection[int]) -> tuple[DeviceProcess, ...] | None:
    """Processes that hold any of these devices, by device and id; None when npu-smi lists no processes."""
    if info.processes is None:
        return None
    held = [process for process in info.processes if process.device_id in devices]
    return tuple(sorted(held, key=lambda process: (process.device_id, process.pid)))


def left_over_processes() -> tuple[LeftOver, ...]:
    """Processes of this host that carry our mark and no longer live below a raylet, by id."""
    found = []
    for process in psutil.process_iter():
        try:
            run = process.environ().get(RUN_VARIABLE)
            if run and not any(parent.name() == _RAYLET for parent in process.parents()):
                found.append(LeftOver(process.pid, process.name(), run))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            # It has ended, or belongs to another user: not ours to judge.
            continue
    return tuple(sorted(found, key=lambda item: item.pid))


def end_processes(left_over: Collection[LeftOver], patience_s: float = 5.0) -> tuple[int, ...]:
    """Kill left-over processes and wait until the kernel has freed what they held; ids of those that stay."""
    processes = []
    for item in left_over:
        try:
            process = psutil.Process(item.pid)
            # The id may be another process's by now.
            if process.environ().get(RUN_VARIABLE) == item.run:
                process.kill()
                processes.append(process)
        except psutil.NoSuchProcess:
            continue
    return tuple(process.pid for process in still_running(processes, patience_s))
