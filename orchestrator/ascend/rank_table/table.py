"""HCCL's rank table: builds it from places, writes and reads it. Pure, except for reading a file.

Versions 1.0 (servers) and 1.2 (super pods of A3). The rank of a device is its position, so a
table in memory cannot have wrong ranks. `rules.py` validates files of other programs.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from orchestrator.ascend import device_groups
from orchestrator.ascend.device_groups import Soc
from orchestrator.ascend.placement import AscendHost, Npu, Place
from orchestrator.ascend.rank_table.fault import is_ipv4, one_line
from orchestrator.ascend.rank_table.group_list import read_old_form
from orchestrator.ascend.rank_table.rules import faults_in_table, faults_in_text
from orchestrator.ascend.rank_table.super_pod_rules import lists_super_pods
from orchestrator.ascend.rank_table.text import read_table_text, table_of_text
from orchestrator.errors import InputError

# Keys that HCCL may read and that we copy unchanged: ports, backup addresses, keys of newer versions.
Extras = tuple[tuple[str, object], ...]

_KEYS_OF_DEVICE = ("device_id", "device_ip", "super_device_id", "rank_id")
# Old generators write `host_nic_ip`; HCCL ignores it.
_KEYS_OF_SERVER = ("server_id", "host_ip", "device", "host_nic_ip")


@dataclass(frozen=True, kw_only=True, slots=True)
class TableDevice:
    """A device of a server; `extras` has every other key, such as backup_device_ip and device_port."""

    device_id: int
    device_ip: str | None = None
    super_device_id: int | None = None
    extras: Extras = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class TableServer:
    """A server and its devices in the order of their ranks."""

    server_id: str
    host_ip: str | None
    devices: tuple[TableDevice, ...]
    extras: Extras = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class SuperPod:
    """The servers of one super pod."""

    super_pod_id: str
    server_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RankTable:
    """Servers in the order of their ranks; version 1.2 if the dies have numbers in a super pod."""

    servers: tuple[TableServer, ...]
    super_pods: tuple[SuperPod, ...] = ()

    @property
    def version(self) -> str:
        numbered = any(d.super_device_id is not None for server in self.servers for d in server.devices)
        return "1.2" if self.super_pods or numbered else "1.0"

    @property
    def world_size(self) -> int:
        return sum(len(server.devices) for server in self.servers)

    def to_dict(self) -> dict[str, Any]:
        """The table as HCCL reads it: every scalar is a string."""
        servers, rank = [], 0
        for server in self.servers:
            devices = []
            for device in server.devices:
                devices.append(_device_dict(device, rank))
                rank += 1
            host_ip = {} if server.host_ip is None else {"host_ip": server.host_ip}
            entry = {"server_id": server.server_id, **host_ip, **dict(server.extras), "device": devices}
            servers.append(entry)
        table: dict[str, object] = {
            "status": "completed",
            "version": self.version,
            "server_count": str(len(servers)),
            "server_list": servers,
        }
        if self.super_pods:
            table["super_pod_list"] = [
                {
                    "super_pod_id": pod.super_pod_id,
                    "server_list": [{"server_id": server_id} for server_id in pod.server_ids],
                }
                for pod in self.super_pods
            ]
        return table

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2) + "\n"


def build_rank_table(places: Sequence[Place], soc: Soc) -> RankTable:
    """The table of a group, checked against every rule; `places` in the order of the ranks.

    Version 1.2 when the hosts are in super pods. Raises InputError when HCCL would refuse the
    table, for example if a device has no address in a group of several hosts.
    """
    if not places:
        raise InputError("a rank table needs at least one rank; give hosts with usable devices")
    servers = []
    for host, group in groupby(places, key=lambda place: place.host):
        devices = tuple(_table_device(place.npu) for place in group)
        servers.append(
            TableServer(
                server_id=host.server_id,
                # HCCL accepts only IPv4 here, but the address of a host may also be a name or IPv6.
                host_ip=host.address if is_ipv4(host.address) else None,
                devices=devices,
            )
        )
    table = RankTable(servers=tuple(servers), super_pods=_super_pods(places))
    refuse_faults(table, soc, "rank table")
    if not has_legal_groups(table, soc):
        raise InputError(f"the devices of a host form no legal group; {device_groups.rule(soc)}")
    return table


def read_rank_table(path: Path, soc: Soc | None = None) -> RankTable:
    """Read a table of version 1.0 or 1.2, or one in the old group_list form; faults raise InputError."""
    text = read_table_text(path)
    if faults := faults_in_text(text, soc):
        raise InputError(one_line(faults, str(path)))
    return table_from_dict(table_of_text(text))


def table_from_dict(table: dict[str, Any]) -> RankTable:
    """A table without faults (see `rules`) as an object; the old form is converted."""
    raw_servers = read_old_form(table).servers if "version" not in table else table["server_list"]
    numbered = table.get("version") == "1.2"
    servers = tuple(_server_from_dict(raw, numbered) for raw in raw_servers)
    if not lists_super_pods(table):
        return RankTable(servers=servers)
    pods = tuple(
        SuperPod(
            super_pod_id=pod["super_pod_id"],
            server_ids=tuple(server["server_id"] for server in pod["server_list"]),
        )
        for pod in table["super_pod_list"]
    )
    return RankTable(servers=servers, super_pods=pods)


def hosts_of_table(table: RankTable) -> tuple[AscendHost, ...]:
    """The hosts of a table, as an input of `placement`."""
    pod_of = {server_id: pod.super_pod_id for pod in table.super_pods for server_id in pod.server_ids}
    return tuple(
        AscendHost(
            address=server.host_ip or server.server_id,
            super_pod_id=pod_of.get(server.server_id),
            npus=tuple(
                Npu(
                    device_id=device.device_id,
                    device_ip=device.device_ip,
                    super_device_id=device.super_device_id,
                )
                for device in server.devices
            ),
        )
        for server in table.servers
    )


def refuse_faults(table: RankTable, soc: Soc | None, source: str) -> None:
    """Raise InputError, in one line, if a table that this program made has faults."""
    if faults := faults_in_table(table.to_dict(), soc):
        raise InputError(one_line(faults, source))


def has_legal_groups(table: RankTable, soc: Soc) -> bool:
    """Whether HCCL's code and documents allow a group of each server's devices."""
    alone = len(table.servers) == 1
    return all(
        device_groups.is_legal([device.device_id for device in server.devices], soc, alone=alone)
        for server in table.servers
    )


def _table_device(npu: Npu) -> TableDevice:
    return TableDevice(
        device_id=npu.device_id, device_ip=npu.device_ip or None, super_device_id=npu.super_device_id
    )


def _super_pods(places: Sequence[Place]) -> tuple[SuperPod, ...]:
    hosts = [host for host, _ in groupby(place.host for place in places)]
    with_pod = [host for host in hosts if host.super_pod_id is not None]
    if with_pod and len(with_pod) < len(hosts):
        alone = next(host.address for host in hosts if host.super_pod_id is None)
        raise InputError(f"host {alone} is in no super pod while others are; leave it out or give its pod")
    pods: dict[str, list[str]] = {}
    for host in with_pod:
        pods.setdefault(str(host.super_pod_id), []).append(host.server_id)
    return tuple(SuperPod(super_pod_id=pod, server_ids=tuple(ids)) for pod, ids in pods.items())


def _device_dict(device: TableDevice, rank: int) -> dict[str, object]:
    entry: dict[str, object] = {"device_id": str(device.device_id)}
    if device.device_ip is not None:
        entry["device_ip"] = device.device_ip
    if device.super_device_id is not None:
        entry["super_device_id"] = str(device.super_device_id)
    return {**entry, **dict(device.extras), "rank_id": str(rank)}


def _server_from_dict(raw: dict[str, Any], numbered: bool) -> TableServer:
    """numbered: version 1.2, whose dies have numbers; other versions ignore them."""
    return TableServer(
        server_id=raw["server_id"],
        host_ip=raw.get("host_ip"),
        devices=tuple(
            _device_from_dict(device, numbered)
            for device in sorted(raw["device"], key=lambda device: int(device["rank_id"]))
        ),
        extras=_extras(raw, _KEYS_OF_SERVER),
    )


def _device_from_dict(raw: dict[str, Any], numbered: bool) -> TableDevice:
    return TableDevice(
        device_id=int(raw["device_id"]),
        # HCCL reads an empty text as no address.
        device_ip=raw.get("device_ip") or None,
        super_device_id=int(raw["super_device_id"]) if numbered and "super_device_id" in raw else None,
        extras=_extras(raw, _KEYS_OF_DEVICE),
    )


def _extras(raw: dict[str, Any], known: tuple[str, ...]) -> Extras:
    return tuple((key, value) for key, value in raw.items() if key not in known)
