"""One order of ranks for Ray, MindSpore and HCCL.

Ray numbers workers in the order in which they started. HCCL needs consecutive ranks on each host, in ascending order
of devices. So we renumber the workers before they learn their ranks, and `rank` means the same everywhere.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.engine.control.generation import Member


@dataclass(frozen=True, slots=True)
class LocalRank:
    """A rank's place: host_index numbers the hosts, local_rank the ranks of one host, both from 0."""

    local_rank: int
    local_world_size: int
    host_index: int


def in_rank_order(workers: Sequence[Member], server_ids: Mapping[str, str]) -> list[int]:
    """Indices of the workers in rank order, sorted by server_id (as text), then devices, then process id.

    server_ids: HCCL's name of each host, by address. The process id orders workers without a device.
    """

    def key(index: int) -> tuple[str, tuple[int, ...], int]:
        worker = workers[index]
        return server_ids[worker.host], tuple(sorted(worker.npus)), worker.pid

    return sorted(range(len(workers)), key=key)


def numbered(workers: Sequence[Member]) -> tuple[Member, ...]:
    """The workers with their ranks set. They must be in rank order."""
    return tuple(replace(worker, rank=rank) for rank, worker in enumerate(workers))


def local_ranks(members: Sequence[Member]) -> list[LocalRank]:
    """Each rank's place on its host, by rank."""
    hosts = list(dict.fromkeys(member.host for member in members))
    on_host = Counter(member.host for member in members)
    seen: Counter[str] = Counter()
    places = []
    for member in members:
        places.append(LocalRank(seen[member.host], on_host[member.host], hosts.index(member.host)))
        seen[member.host] += 1
    return places
