"""Which processes still hold devices, and which of them are left over from a run of ours.

A group may start again only on devices that no process uses: HCCL otherwise fails with EJ0001
("maybe the last training process is running"). What is not ours is named and left alone.
"""

from collections.abc import Collection
from dataclasses import dataclass

import psutil

from orchestrator.ascend.inventory.npu_smi_table import DeviceProcess, NpuSmiInfo
from orchestrator.engine.host.processes import still_running
from orchestrator.process_identity import start_ticks

# Ray workers and the scheduler of a run carry its directory in the environment they start with.
RUN_VARIABLE = "SDNET_RUN"
_RAYLET = "raylet"


@dataclass(frozen=True, slots=True)
class LeftOver:
    """A process of a run of ours that no Ray node owns any more.

    started: as `start_ticks`; None where an older version did not record it.
    """

    pid: int
    name: str
    run: str
    started: int | None = None


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
                found.append(LeftOver(process.pid, process.name(), run, start_ticks(process.pid)))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            # It has ended, or belongs to another user: not ours to judge.
            continue
    return tuple(sorted(found, key=lambda item: item.pid))


def end_processes(left_over: Collection[LeftOver], patience_s: float = 5.0) -> tuple[int, ...]:
    """Kill left-over processes and wait until the kernel has freed their resources; returns ids of survivors.

    A process that has got the id of one since is left alone. One of ours that runs as another user
    cannot be killed and stays.
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
            continue  # ended, or not ours to end: `still_running` says which
    return tuple(process.pid for process in still_running(processes, patience_s))


def _is_still(item: LeftOver, process: psutil.Process) -> bool:
    """Whether the id still stands for the process that was noted, and not for another one."""
    same_start = item.started is not None and start_ticks(item.pid) == item.started
    if item.started is not None and not same_start:
        return False
    try:
        return process.environ().get(RUN_VARIABLE) == item.run
    except psutil.AccessDenied:
        return same_start  # another user's process: only its start time can say that it is ours
