"""Finds the processes that use devices, and those that an earlier generation of a run left over.

A group can restart only on free devices: otherwise HCCL fails with EJ0001 ("maybe the last training process is
running"). Processes of other programs are reported and never killed.
"""

from collections.abc import Collection
from dataclasses import dataclass

import psutil

from orchestrator.ascend.inventory.npu_smi_table import DeviceProcess, NpuSmiInfo
from orchestrator.engine.host.processes import still_running
from orchestrator.process_identity import start_ticks

# The ranks, standbys and schedulers of a run start with this variable: its value is the mark of the run.
RUN_VARIABLE = "SDNET_RUN"
_RAYLET = "raylet"


@dataclass(frozen=True, slots=True)
class LeftOver:
    """A process of a run that must end.

    run: the mark of the run. started: as `start_ticks`; None if an older version did not record it.
    """

    pid: int
    name: str
    run: str
    started: int | None = None


def holders_of(info: NpuSmiInfo, devices: Collection[int]) -> tuple[DeviceProcess, ...] | None:
    """Processes that use any of these devices, sorted by device and pid; None if npu-smi lists no processes."""
    if info.processes is None:
        return None
    held = [process for process in info.processes if process.device_id in devices]
    return tuple(sorted(held, key=lambda process: (process.device_id, process.pid)))


def left_over_processes() -> tuple[LeftOver, ...]:
    """Processes of this host that have the mark of a run but no raylet among their parents, sorted by pid."""
    found = []
    for process in psutil.process_iter():
        try:
            run = process.environ().get(RUN_VARIABLE)
            if run and not any(parent.name() == _RAYLET for parent in process.parents()):
                found.append(LeftOver(process.pid, process.name(), run, start_ticks(process.pid)))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            # It has ended, or belongs to another user.
            continue
    return tuple(sorted(found, key=lambda item: item.pid))


def end_processes(left_over: Collection[LeftOver], patience_s: float = 5.0) -> tuple[int, ...]:
    """Kill left-over processes and wait until the kernel has freed their resources; returns the pids of the survivors.

    If another process has reused the pid, it is not killed. A process of another user cannot be killed and survives.
    """
    processes = []
    for item in left_over:
        try:
            process = psutil.Process(item.pid)
            if not _is_still(item, process):
                continue
            processes.append(process)
            process.kill()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # ended, or of another user: `still_running` finds out
    return tuple(process.pid for process in still_running(processes, patience_s))


def _is_still(item: LeftOver, process: psutil.Process) -> bool:
    """Whether the pid still belongs to the recorded process: the kernel reuses pids."""
    same_start = item.started is not None and start_ticks(item.pid) == item.started
    if item.started is not None and not same_start:
        return False
    try:
        return process.environ().get(RUN_VARIABLE) == item.run
    except psutil.AccessDenied:
        return same_start  # a process of another user hides its environment, so only its start time identifies it
