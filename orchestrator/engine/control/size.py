"""How many ranks fit on the hosts, which host each rank gets, and when an elastic group grows. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RankNeeds:
    """Resources of each rank, by Ray's resource names. per_host: maximum of ranks on one host, None for no limit."""

    resources: Mapping[str, float]
    per_host: int | None = None

    def room(self, host: Mapping[str, float]) -> int:
        """How many ranks fit on a host with these resources."""
        limits = [int(host.get(name, 0.0) // each) for name, each in self.resources.items() if each > 0]
        if self.per_host is not None:
            limits.append(self.per_host)
        return max(min(limits), 0) if limits else 0


def room_of(hosts: Sequence[Mapping[str, float]], needs: RankNeeds) -> int:
    """How many ranks fit on all of these hosts together. All code that needs the capacity calls this."""
    return sum(needs.room(host) for host in hosts)


def assign(hosts: Mapping[str, Mapping[str, float]], needs: RankNeeds, num_ranks: int) -> list[str] | None:
    """The host of each rank, filling hosts in the given order; None when there is no room for all."""
    places = [name for name, resources in hosts.items() for _ in range(needs.room(resources))]
    return places[:num_ranks] if len(places) >= num_ranks else None


class Growth:
    """Decides when a running elastic group grows: only right after a checkpoint.

    Growing starts a new generation, which loses all steps since the last checkpoint. Shrinking is not decided here:
    a group shrinks only when it restarts after a failure or a drain.
    """

    def __init__(self, most: int):
        self._most = most
        self._last_saved: str | None = None

    def grown_size(self, world_size: int, saved: str | None, room: Callable[[], int]) -> int | None:
        """The new number of ranks; None to keep the group. saved: the newest checkpoint of this generation.

        room: counts how many ranks fit on the hosts; called only when the group could grow."""
        is_new, self._last_saved = saved is not None and saved != self._last_saved, saved
        if not is_new or world_size == self._most:
            return None
        size = min(room(), self._most)
        return size if size > world_size else None
