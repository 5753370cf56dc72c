"""What a generation needs on Ascend before its ranks meet: free devices, a rank table, CPUs near each NPU.

Hosts are asked through the group's own workers: a host that died a moment ago has none, so
nobody waits for it.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.ascend.device_groups import Soc
from orchestrator.ascend.device_report import HostInventory
from orchestrator.ascend.fence import LeftOver, end_processes, left_over_processes
from orchestrator.ascend.group import AscendGroup, ascend_group, ranks_by_host
from orchestrator.ascend.survey import inventory_of_host
from orchestrator.errors import InputError
from orchestrator.events import EventLog
from orchestrator.run_directory import RunDirectory, write_atomically
from orchestrator.training.seats import Seat, answers_of

# The driver frees a device some seconds after its process; links flap when a neighbour dies.
_PATIENCE_S = 30.0
_ASK_EVERY_S = 1.0

StatedHosts = Mapping[str, Mapping[int, str]]


@dataclass(frozen=True, slots=True)
class HostShare:
    """What a rank has of its host: CPUs near its device, and the ranks there, itself among them."""

    cpus: tuple[int, ...]
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AscendStart:
    """rank_table_path: None when there is no run directory to keep it. shares: by rank."""

    rank_table_path: str | None
    shares: tuple[HostShare, ...]


@dataclass(frozen=True, slots=True)
class ClearedHost:
    """A host's inventory, and the processes of this run that had to be ended there."""

    inventory: HostInventory
    ended: tuple[LeftOver, ...]


def prepare_ascend(
    worker_group: Any,
    seats: list[Seat],
    *,
    soc: Soc,
    stated: StatedHosts,
    run: RunDirectory | None,
    timeout_s: float,
) -> AscendStart:
    """Free the devices of the group's hosts, ask what they are, and write the group's rank table.

    stated: addresses of devices by host, as the job gives them; when given, every worker must
    run on a host it names. The table is kept as plan/rank_table.<generation>.json, and the
    newest also as plan/rank_table.json. Raises InputError when HCCL would refuse the group.
    """
    numbers = [_only_npu(seat, stated) for seat in seats]
    hosts = ranks_by_host([seat.host for seat in seats])
    mark = None if run is None else str(run.root)
    asked = {}
    for address, ranks in hosts.items():
        taken = tuple(numbers[rank] for rank in ranks)
        asked[ranks[0]] = worker_group.execute_single_async(
            ranks[0], clear_host, address, taken, stated, mark, len(hosts) > 1
        )
    cleared: dict[int, ClearedHost] = answers_of(asked, seats, timeout_s + _PATIENCE_S)
    inventories = {host.inventory.address: host.inventory for host in cleared.values()}
    workers = [
        (seat.host, physical_id(inventories[seat.host], number))
        for seat, number in zip(seats, numbers, strict=True)
    ]
    group = ascend_group(list(inventories.values()), workers, soc)
    path = None if run is None else _keep(group, cleared.values(), run)
    shares = zip(group.cpus, seats, strict=True)
    return AscendStart(path, tuple(HostShare(cpus, hosts[seat.host]) for cpus, seat in shares))


def physical_id(inventory: HostInventory, number: int) -> int:
    """Physical id, as the rank table wants it, of the device that Ray and CANN call `number` on a host."""
    found = inventory.physical_id(number)
    if found is not None:
        return found
    known = sorted(device.number_in_cann for device in inventory.devices)
    raise InputError(
        f"Ray gave a rank NPU {number} of {inventory.address}, but CANN numbers the devices that the job "
        f"may use there {known}; set ASCEND_RT_VISIBLE_DEVICES to some of these before `ray start` there, "
        "or name the device in cluster.hosts"
    )


def clear_host(
    address: str, numbers: Collection[int], stated: StatedHosts, mark: str | None, needs_network: bool
) -> ClearedHost:
    """On a host: end what is left there of earlier generations, and wait until its devices can be used.

    numbers: the devices of the group there, as Ray and CANN number them. mark: the run's, which its
    processes carry; the launch lock says that nobody else runs it. When patience ends the inventory
    is returned as it is: it says what is wrong with a device.
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
        if not unusable or time.monotonic() >= deadline:
            return ClearedHost(inventory, ended)
        time.sleep(_ASK_EVERY_S)


def server_id_of_host(address: str, stated: StatedHosts) -> str:
    """On a host: its name in the rank table, which begins with its super pod if it is in one."""
    return inventory_of_host(address, stated).host(needs_network=False).server_id


def host_group_name(first_rank: int) -> str:
    """Name of the communicator of the ranks of one host, `first_rank` being the lowest of them."""
    # Groups of the same name on different hosts would be one group to the scheduler.
    return f"host_of_rank_{first_rank}"


def _only_npu(seat: Seat, stated: StatedHosts) -> int:
    """The rank's device, as Ray and CANN number it."""
    if stated and seat.host not in stated:
        raise InputError(
            f"Ray has placed a rank on {seat.host}, which cluster.hosts does not name; "
            "add it there, or take the host out of the Ray cluster"
        )
    if len(seat.npus) != 1:
        raise InputError(
            f"a rank on {seat.host} holds NPUs {list(seat.npus)} of Ray's; a rank needs exactly one: "
            "start Ray there with --resources '{\"NPU\": <number of devices>}'"
        )
    return seat.npus[0]


def _keep(group: AscendGroup, cleared: Collection[ClearedHost], run: RunDirectory) -> str:
    """Write the table and report what was ended; returns the path that the ranks read."""
    events = EventLog(run.events)
    for host in cleared:
        if host.ended:
            events.emit("fenced", host=host.inventory.address, pids=[item.pid for item in host.ended])
    generation = max((event.get("generation", 0) for event in events.read()), default=0)
    # A name of its own: a file that was replaced may still be the old one in a host's NFS cache.
    path = run.plan / f"rank_table.{generation}.json"
    for target in (path, run.plan / "rank_table.json"):
        write_atomically(target, group.table.to_json())
    return str(path)
