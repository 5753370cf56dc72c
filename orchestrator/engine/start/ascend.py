"""Prepares a generation on Ascend before the rendezvous: free devices, a rank table, CPUs near each NPU.

The group's own workers report on their hosts. A host that has just died has no worker, so no call waits for it.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.ascend.environment import StatedHosts
from orchestrator.ascend.group import AscendGroup, ascend_group, ranks_by_host
from orchestrator.ascend.inventory.device_report import HostInventory
from orchestrator.engine.config import MindSporeConfig
from orchestrator.engine.control.generation import Member
from orchestrator.engine.host.left_over import LeftOver, end_processes, left_over_processes
from orchestrator.engine.host.survey import inventory_of_host
from orchestrator.engine.rank.start import HostShare
from orchestrator.engine.start.answers import Workers, answers_of
from orchestrator.errors import InputError
from orchestrator.storage import DirectoryStorage

# The driver frees a device some seconds after its process has ended. Links flap when a neighbour dies.
_PATIENCE_S = 30.0
_ASK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class AscendStart:
    """rank_table_path: None if there is no directory for it. shares: by rank. ended: killed pids, by host."""

    rank_table_path: str | None
    shares: tuple[HostShare, ...]
    ended: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class ClearedHost:
    """A host's inventory, and the left-over processes of this run that were killed there."""

    inventory: HostInventory
    ended: tuple[LeftOver, ...]


def prepare_ascend(
    workers: Workers, members: Sequence[Member], config: MindSporeConfig, generation: int
) -> AscendStart:
    """Free the devices of the group's hosts, take their inventories, and write the group's rank table.

    If the job states the addresses of devices, every worker must run on a host that the job names. The table is
    written as plan/rank_table.<generation>.json, and the newest also as plan/rank_table.json. Raises InputError if
    HCCL would refuse the group.
    """
    numbers = [_only_npu(member, config.hosts) for member in members]
    hosts = ranks_by_host([member.host for member in members])
    asked = {}
    for address, ranks in hosts.items():
        taken = tuple(numbers[rank] for rank in ranks)
        asked[ranks[0]] = workers.execute_single_async(
            ranks[0], clear_host, address, taken, config.hosts, config.run, len(hosts) > 1
        )
    cleared = list(answers_of(asked, members, config.start_timeout_s + _PATIENCE_S).values())
    inventories = {host.inventory.address: host.inventory for host in cleared}
    placed = [
        (member.host, physical_id(inventories[member.host], number))
        for member, number in zip(members, numbers, strict=True)
    ]
    group = ascend_group(list(inventories.values()), placed, config.soc)
    path = None if config.directory is None else _write_table(group, config.directory / "plan", generation)
    shares = tuple(
        HostShare(cpus, hosts[member.host]) for cpus, member in zip(group.cpus, members, strict=True)
    )
    ended = {h.inventory.address: tuple(item.pid for item in h.ended) for h in cleared if h.ended}
    return AscendStart(path, shares, ended)


def physical_id(inventory: HostInventory, number: int) -> int:
    """Physical id, for the rank table, of the device with Ray's and CANN's `number` on a host. Raises InputError."""
    found = inventory.physical_id(number)
    if found is not None:
        return found
    if not inventory.devices:
        reason = next(iter(inventory.problems), "npu-smi lists none").removeprefix(f"{inventory.address}: ")
        raise InputError(
            f"Ray gave a rank NPU {number} of {inventory.address}, but no NPU that the job may use is known there "
            f"({reason}); look at that host with `sdnet-orchestrate check`"
        )
    known = sorted(device.number_in_cann for device in inventory.devices)
    raise InputError(
        f"Ray gave a rank NPU {number} of {inventory.address}, but CANN numbers the devices that the job "
        f"may use there {known}; set ASCEND_RT_VISIBLE_DEVICES to some of these before `ray start` there, "
        "or name the device in cluster.hosts"
    )


def clear_host(
    address: str, numbers: Collection[int], stated: StatedHosts, mark: str | None, needs_network: bool
) -> ClearedHost:
    """On a host: kill the left-over processes of earlier generations, and wait until its devices are usable.

    numbers: the devices of the group on this host, as Ray and CANN number them. mark: of the run, in the environment
    of its processes; a run has only one launch at a time, so all of them are left over. After half a minute the
    inventory is returned even if a device is unusable: it contains the reason.
    """
    ended = tuple(item for item in left_over_processes() if item.run == mark)
    end_processes(ended)
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        inventory = inventory_of_host(address, stated)
        wanted = {inventory.physical_id(number) for number in numbers}
        unusable = [
            device
            for device in inventory.devices
            if device.device_id in wanted and device.unusable(needs_network=needs_network)
        ]
        # npu-smi may fail for some seconds after a process of a device was killed. Then no device is known.
        if (inventory.devices and not unusable) or time.monotonic() >= deadline:
            return ClearedHost(inventory, ended)
        time.sleep(_ASK_EVERY_S)


def server_id_of_host(address: str, stated: StatedHosts) -> str:
    """On a host: its name in the rank table. The name of a host in a super pod begins with the super pod."""
    return inventory_of_host(address, stated).host(needs_network=False).server_id


def _only_npu(worker: Member, stated: StatedHosts) -> int:
    """The rank's device, as Ray and CANN number it."""
    if stated and worker.host not in stated:
        raise InputError(
            f"Ray has placed a rank on {worker.host}, which cluster.hosts does not name; "
            "add it there, or take the host out of the Ray cluster"
        )
    if len(worker.npus) != 1:
        raise InputError(
            f"a rank on {worker.host} has NPUs {list(worker.npus)} of Ray; a rank needs exactly one: "
            "start Ray there with --resources '{\"NPU\": <number of devices>}'"
        )
    return worker.npus[0]


def _write_table(group: AscendGroup, folder: Path, generation: int) -> str:
    """Write the rank table; returns the path that the ranks read."""
    # Each generation writes a new name, because the NFS cache of a host may return the old content of a replaced file.
    path = folder / f"rank_table.{generation}.json"
    storage = DirectoryStorage(folder)
    for name in (path.name, "rank_table.json"):
        storage.put(name, group.table.to_json().encode())
    return str(path)
