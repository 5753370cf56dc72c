"""Chooses the host and the NPU of each rank. Pure: from the devices of the hosts to ordered places.

The ranks of a host are contiguous and ascend with the device id. Hosts and super pods are sorted by
server_id as text, because MindSpore numbers ranks in that order. Unhealthy and busy devices are removed
first.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.ascend import device_groups
from orchestrator.ascend.device_groups import Soc
from orchestrator.errors import InputError

_NAMED_IN_A_REFUSAL = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Npu:
    """A device of a host. `unusable` says why it must not be used, and is empty otherwise.

    device_id: physical id. logical_id: the number that CANN and Ray use in their container, None if it
    was not read. device_ip: address of the device's network port, None if it has none.
    super_device_id: its number in its super pod (A3), None elsewhere.
    """

    device_id: int
    device_ip: str | None = None
    super_device_id: int | None = None
    unusable: str = ""
    logical_id: int | None = None

    @property
    def number_in_cann(self) -> int:
        return self.device_id if self.logical_id is None else self.logical_id


@dataclass(frozen=True, kw_only=True, slots=True)
class AscendHost:
    """A host and all of its devices; `super_pod_id` only where hosts form super pods."""

    address: str
    npus: tuple[Npu, ...]
    super_pod_id: str | None = None

    @classmethod
    def stated(cls, address: str, devices: Mapping[int, str]) -> "AscendHost":
        """A host as the job names it: `devices` maps physical ids to device addresses."""
        npus = tuple(Npu(device_id=device, device_ip=ip) for device, ip in sorted(devices.items()))
        return cls(address=address, npus=npus)

    @property
    def server_id(self) -> str:
        """Name in the rank table. The pod comes first, so that sorting keeps the hosts of a pod together."""
        return self.address if self.super_pod_id is None else f"{self.super_pod_id}/{self.address}"

    @property
    def usable(self) -> tuple[int, ...]:
        return tuple(sorted(npu.device_id for npu in self.npus if not npu.unusable))

    def on_chip(self, soc: Soc) -> "AscendHost":
        """The same host; an NPU whose id is above those of the chip is unusable."""
        highest = device_groups.highest_id(soc)
        return replace(
            self,
            npus=tuple(
                replace(npu, unusable=npu.unusable or f"{soc} has devices 0 to {highest}")
                if npu.device_id > highest
                else npu
                for npu in self.npus
            ),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where one rank runs; `local_rank` counts the ranks of its host."""

    rank: int
    local_rank: int
    host: AscendHost
    npu: Npu


def place(
    hosts: Sequence[AscendHost],
    workers: int,
    soc: Soc,
    per_host: int | None = None,
    *,
    setting: str = "cluster.workers",
) -> tuple[Place, ...]:
    """Give `workers` ranks a device each, in the order of the ranks.

    Hosts get equal numbers of ranks if possible (on 910A always). Prefers the fewest hosts, then the
    fewest super pods, then the first by server_id. per_host fixes the number on each host. setting: where the
    user states `workers`. Raises InputError when no legal group exists; the message names the largest one
    that does, and the setting.
    """
    _check_unique(hosts)
    if workers < 1:
        raise InputError(f"workers is {workers}; a group has at least 1 rank")
    hosts = [host.on_chip(soc) for host in hosts]
    chosen = _equal_groups(hosts, workers, soc, per_host)
    if chosen is None and soc != "910a":
        chosen = _unequal_groups(hosts, workers, soc, per_host)
    if chosen is None:
        best = largest_group(hosts, workers, soc, per_host)
        remedy = f"set {setting} to {best}, the largest group that fits" if best else "none fits"
        raise InputError(f"{_misfit(hosts, workers, soc, per_host)}; {remedy}")
    return _ranked(chosen)


def largest_group(hosts: Sequence[AscendHost], most: int, soc: Soc, per_host: int | None = None) -> int:
    """Ranks of the largest legal group of at most `most`; 0 when not even one rank fits."""
    hosts = [host.on_chip(soc) for host in hosts]
    if soc == "910a":
        ranks = [0]
        for size in device_groups.legal_sizes(soc):
            if size <= (per_host or size):
                # A group of fewer ranks than `per_host` is on one host.
                most_hosts = 1 if size < (per_host or size) else len(hosts)
                ranks.append(size * min(len(_capable(hosts, size, soc)), most // size, most_hosts))
        return max(ranks)
    limit = per_host or most
    together = sum(device_groups.most_in_cluster(host.usable, soc, limit) for host in hosts)
    alone = (
        size
        for size in device_groups.legal_sizes(soc, alone=True)
        if size <= min(most, limit) and _capable(hosts, size, soc, alone=True)
    )
    return max(min(most, together), max(alone, default=0))


def places_of_workers(
    hosts: Sequence[AscendHost], workers: Sequence[tuple[str, int]], soc: Soc
) -> tuple[Place, ...]:
    """Places of workers that already run: `workers[i]` is the (address, physical device id) of worker i.

    The result is in the order of `workers`. Its `rank` follows the server_id as text, then the number that
    CANN and Ray use for the device. Raises InputError for a worker on an unknown host
    or device, two workers on one device, or a set of devices that HCCL refuses.
    """
    _check_unique(hosts)
    by_address = {host.address: host for host in hosts}
    taken: dict[AscendHost, list[int]] = defaultdict(list)
    for address, device in workers:
        host = by_address.get(address)
        if host is None or device not in {npu.device_id for npu in host.npus}:
            raise InputError(
                f"a worker runs on NPU {device} of {address}, which the inventory does not know; "
                "look at that host with `sdnet-orchestrate check`"
            )
        if device > (highest := device_groups.highest_id(soc)):
            raise InputError(
                f"a worker runs on NPU {device} of {address}, but {soc} has devices 0 to {highest}; hide it from "
                "Ray with ASCEND_RT_VISIBLE_DEVICES at `ray start`, or correct cluster.soc"
            )
        if device in taken[host]:
            raise InputError(
                f"two workers hold NPU {device} of {address}; let ASCEND_RT_VISIBLE_DEVICES there name "
                "each device once, and then run `ray start` again"
            )
        taken[host].append(device)
    for host, devices in taken.items():
        if not device_groups.is_legal(devices, soc, alone=len(taken) == 1):
            raise InputError(
                f"workers hold NPUs {sorted(devices)} of {host.address}; {device_groups.rule(soc)}"
            )
    if soc == "910a" and len({len(devices) for devices in taken.values()}) > 1:
        counts = ", ".join(f"{host.address}: {len(devices)}" for host, devices in taken.items())
        raise InputError(
            f"hosts hold unequal numbers of ranks ({counts}); 910A needs the same number on each: "
            "set cluster.workers_per_host"
        )
    ranked = _ranked({host: _in_order_of_cann(host, devices) for host, devices in taken.items()})
    by_worker = {(item.host.address, item.npu.device_id): item for item in ranked}
    return tuple(by_worker[worker] for worker in workers)


def _in_order_of_cann(host: AscendHost, devices: Sequence[int]) -> tuple[int, ...]:
    number = {npu.device_id: npu.number_in_cann for npu in host.npus}
    return tuple(sorted(devices, key=lambda device: number[device]))


def _check_unique(hosts: Sequence[AscendHost]) -> None:
    seen: set[str] = set()
    for host in hosts:
        if host.address in seen:
            raise InputError(f"host {host.address} is given twice; name each host once")
        seen.add(host.address)
        ids = [npu.device_id for npu in host.npus]
        if len(set(ids)) != len(ids):
            raise InputError(f"host {host.address} has a device twice in {sorted(ids)}; name each once")


def _equal_groups(
    hosts: Sequence[AscendHost], workers: int, soc: Soc, per_host: int | None
) -> dict[AscendHost, tuple[int, ...]] | None:
    alone = device_groups.legal_sizes(soc, alone=True)
    sizes = alone if per_host is None else (min(per_host, workers),)
    for size in sorted(sizes, reverse=True):
        if workers % size:
            continue
        capable = _capable(hosts, size, soc, alone=size == workers)
        if len(capable) >= workers // size:
            return {host: capable[host] for host in _nearest(list(capable), workers // size)}
    return None


def _unequal_groups(
    hosts: Sequence[AscendHost], workers: int, soc: Soc, per_host: int | None
) -> dict[AscendHost, tuple[int, ...]] | None:
    limit = per_host or workers
    most = {host: device_groups.most_in_cluster(host.usable, soc, limit) for host in hosts}
    chosen: dict[AscendHost, tuple[int, ...]] = {}
    missing = workers
    for host in sorted(hosts, key=lambda host: (-most[host], host.server_id)):
        devices = device_groups.choose(host.usable, min(most[host], missing), soc)
        if devices:
            chosen[host] = devices
            missing -= len(devices)
    return chosen if not missing else None


def _capable(
    hosts: Sequence[AscendHost], size: int, soc: Soc, *, alone: bool = False
) -> dict[AscendHost, tuple[int, ...]]:
    """Hosts with a legal group of `size` devices, and that group. alone: one host is the whole group."""
    groups = {host: device_groups.choose(host.usable, size, soc, alone=alone) for host in hosts}
    return {host: group for host, group in groups.items() if group is not None}


def _nearest(hosts: list[AscendHost], count: int) -> list[AscendHost]:
    """`count` hosts in the fewest super pods: the smallest pod that has enough, else the largest pods first."""
    pods: dict[str | None, list[AscendHost]] = defaultdict(list)
    for host in sorted(hosts, key=lambda host: host.server_id):
        pods[host.super_pod_id].append(host)
    sufficient = [pod for pod in pods.values() if len(pod) >= count]
    if sufficient:
        return min(sufficient, key=len)[:count]
    return [host for pod in sorted(pods.values(), key=len, reverse=True) for host in pod][:count]


def _ranked(chosen: Mapping[AscendHost, tuple[int, ...]]) -> tuple[Place, ...]:
    places: list[Place] = []
    for host in sorted(chosen, key=lambda host: host.server_id):
        npus = {npu.device_id: npu for npu in host.npus}
        for local_rank, device in enumerate(chosen[host]):
            places.append(Place(rank=len(places), local_rank=local_rank, host=host, npu=npus[device]))
    return tuple(places)


def _misfit(hosts: Sequence[AscendHost], workers: int, soc: Soc, per_host: int | None) -> str:
    """That the ranks do not fit, what is left out, and the rule of the chip."""
    left_out = [
        f"{host.address} NPU {npu.device_id} ({npu.unusable})"
        for host in sorted(hosts, key=lambda host: host.server_id)
        for npu in host.npus
        if npu.unusable
    ]
    usable = sum(len(host.usable) for host in hosts)
    limit = f" with {per_host} a host" if per_host else ""
    text = f"{workers} ranks{limit} do not fit {usable} usable NPUs of {len(hosts)} hosts"
    if left_out:
        more = len(left_out) - _NAMED_IN_A_REFUSAL
        text += (
            "; left out: "
            + ", ".join(left_out[:_NAMED_IN_A_REFUSAL])
            + (f" and {more} more" if more > 0 else "")
        )
    if soc == "910a" or usable >= workers:
        text += f"; {device_groups.rule(soc)}"
    if soc == "910a":
        text += ", the same number on each host"
    return text
