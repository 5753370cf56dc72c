"""One generation of a training group on Ascend, computed from where its workers run. Pure.

Input: where Ray has placed the workers, and the inventories of the hosts. Output: each rank's place,
the rank table, the CPUs of each rank, and the ranks of each host.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.ascend.device_groups import Soc
from orchestrator.ascend.environment import cpus_of_ranks
from orchestrator.ascend.inventory.device_report import HostInventory, hosts_to_place_on
from orchestrator.ascend.placement import Place, places_of_workers
from orchestrator.ascend.rank_table.table import RankTable, build_rank_table
from orchestrator.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class AscendGroup:
    """A group: places by rank, its rank table, and the CPUs of each rank."""

    places: tuple[Place, ...]
    table: RankTable
    cpus: tuple[tuple[int, ...], ...]


def ascend_group(
    inventories: Sequence[HostInventory], workers: Sequence[tuple[str, int]], soc: Soc
) -> AscendGroup:
    """The group of running workers, `workers[i]` being (host address, physical device id) of Ray's rank i.

    Raises InputError when Ray's ranks are not in MindSpore's order, a worker was placed on an unhealthy
    or busy device, or HCCL would refuse the group.
    """
    places = places_of_workers(hosts_to_place_on(inventories), workers, soc)
    for rank, place in enumerate(places):
        where = f"NPU {place.npu.device_id} of {place.host.address}"
        if place.rank != rank:
            raise InputError(
                f"worker {rank} on {where} must have rank {place.rank}; sort the workers by server_id "
                "and device before they learn their ranks"
            )
        if place.npu.unusable:
            raise InputError(
                f"rank {rank} was placed on {where}, which cannot be used ({place.npu.unusable}); "
                "hide it from Ray with ASCEND_RT_VISIBLE_DEVICES at `ray start`"
            )
    return AscendGroup(places=places, table=build_rank_table(places, soc), cpus=_cpus(inventories, places))


def ranks_by_host(addresses: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Ranks of each host, `addresses[r]` being that of rank r: the members of its communicator group."""
    ranks: dict[str, list[int]] = {}
    for rank, address in enumerate(addresses):
        ranks.setdefault(address, []).append(rank)
    return {address: tuple(members) for address, members in ranks.items()}


def _cpus(inventories: Sequence[HostInventory], places: Sequence[Place]) -> tuple[tuple[int, ...], ...]:
    """CPUs of each rank, near its device; ranks of a host are contiguous."""
    cpus: list[tuple[int, ...]] = []
    hosts = {inventory.address: inventory for inventory in inventories}
    for address, ranks in ranks_by_host([place.host.address for place in places]).items():
        host = hosts[address]
        node_of = {device.device_id: device.numa_node for device in host.devices}
        nodes = [node_of[places[rank].npu.device_id] for rank in ranks]
        cpus.extend(cpus_of_ranks(numa_cpus=host.numa_cpus, rank_nodes=nodes))
    return tuple(cpus)
