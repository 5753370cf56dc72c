"""Every rule that HCCL (and MindSpore) hold a rank table to, checked before a launch.

A fault names HCCL's own error code, the JSON path, the value and the fix, so that what HCCL
would log minutes later on every rank is told once, at once. Source of rules and codes: HCCL's
public documents and sources (rank table configuration, error codes EI0001 to EI0019).
"""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from orchestrator.ascend import device_groups
from orchestrator.ascend.device_groups import Soc
from orchestrator.ascend.group_list import servers_from_group_list
from orchestrator.ascend.rank_table_fault import (
    ABSENT,
    FAMILIES,
    INVALID,
    MINDSPORE,
    MISSING,
    UNREADABLE,
    Fault,
    FaultyTable,
    decimal,
    ip_address,
    is_ipv4,
    missing_or_invalid,
)
from orchestrator.ascend.super_pod_rules import super_pod_faults

PORT_KEYS = ("device_port", "host_port", "backup_device_port")
_MOST_SERVER_ID_CHARACTERS = 64
_REFUSED_VERSIONS = {
    "1.1": "is the heterogeneous form, which SDNet has no use for; write version 1.0",
    "2.0": "is the rank-centric form of the 950, which is not supported yet; write version 1.0 or 1.2",
}


def faults_in_text(text: str, soc: Soc | None = None) -> list[Fault]:
    """Every broken rule of a rank table file's text; never raises, whatever the text."""
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        return [Fault(UNREADABLE, "$", text[:40], f"this is not JSON ({error}); write the table anew")]
    return faults_in_table(table, soc)


def faults_in_table(table: Any, soc: Soc | None = None) -> list[Fault]:
    """Every broken rule of a parsed table, in the order of the file; an empty list means legal.

    soc adds the rules of that chip: ids and groups on 910A, super pods only on A3.
    """
    if not isinstance(table, dict):
        return [Fault(UNREADABLE, "$", table, "a rank table is a JSON object; write the table anew")]
    if "version" not in table and "group_list" in table:
        return _faults_in_old_form(table, soc)
    faults = [*_head_faults(table, soc)]
    servers = table.get("server_list", ABSENT)
    if not isinstance(servers, list) or not servers:
        code = missing_or_invalid(servers)
        return [*faults, Fault(code, "$.server_list", servers, "list at least one server with its devices")]
    count = table.get("server_count", ABSENT)
    if decimal(count) != len(servers):
        code = missing_or_invalid(count)
        faults.append(
            Fault(code, "$.server_count", count, f'write "{len(servers)}", the length of server_list')
        )
    super_pods = table.get("version") == "1.2"
    faults += _server_list_faults(servers, soc, super_pods)
    if super_pods:
        faults += super_pod_faults(table.get("super_pod_list", ABSENT), servers)
    return faults


def _faults_in_old_form(table: dict[str, Any], soc: Soc | None) -> list[Fault]:
    try:
        servers = servers_from_group_list(table)
    except FaultyTable as error:
        return [error.fault]
    status = [] if "status" not in table else [*_one_of(table, "status", ("completed", "initializing"))]
    faults = _server_list_faults(servers, soc, super_pods=False)
    # These paths exist only in the converted table; say so.
    return [*status, *(dataclasses.replace(fault, path=f"(as 1.0) {fault.path}") for fault in faults)]


def _head_faults(table: dict[str, Any], soc: Soc | None) -> Iterator[Fault]:
    yield from _one_of(table, "status", ("completed", "initializing"))
    version = table.get("version", ABSENT)
    if isinstance(version, str) and version in _REFUSED_VERSIONS:
        yield Fault(INVALID, "$.version", version, _REFUSED_VERSIONS[version])
    else:
        yield from _one_of(table, "version", ("1.0", "1.2"))
    if version == "1.2" and soc not in (None, "a3"):
        yield Fault(INVALID, "$.version", version, f"{soc} has no super pods; write version 1.0")


def _one_of(table: dict[str, Any], key: str, allowed: tuple[str, ...]) -> Iterator[Fault]:
    value = table.get(key, ABSENT)
    if value not in allowed:
        yield Fault(
            missing_or_invalid(value),
            f"$.{key}",
            value,
            f'write "{allowed[0]}" or "{allowed[1]}"',
        )


def _server_list_faults(servers: list[Any], soc: Soc | None, super_pods: bool) -> list[Fault]:
    reader = _ServerReader(needs_ip=len(servers) > 1 or soc == "910a", soc=soc, super_pods=super_pods)
    for index, server in enumerate(servers):
        reader.read(server, f"$.server_list[{index}]")
    return [*reader.faults, *_group_faults(reader, soc)]


class _ServerReader:
    """Reads server after server and gathers faults; holds what must be unique in the whole table."""

    def __init__(self, *, needs_ip: bool, soc: Soc | None, super_pods: bool):
        self.needs_ip, self.soc, self.super_pods = needs_ip, soc, super_pods
        self.faults: list[Fault] = []
        self.groups: list[tuple[str, list[int]]] = []
        self._server_ids: dict[str, str] = {}
        self._last_server_id = ""
        self._addresses: dict[Any, str] = {}
        self._family: int | None = None
        self._next_rank = 0

    def read(self, server: Any, path: str) -> None:
        if not isinstance(server, dict):
            self._fault(INVALID, path, server, "write an object with server_id and device")
            return
        self._server_id(server.get("server_id", ABSENT), f"{path}.server_id")
        if "host_ip" in server and not is_ipv4(server["host_ip"]):
            self._fault(
                INVALID, f"{path}.host_ip", server["host_ip"], "write an IPv4 address or leave it out"
            )
        if "pod_ip" in server:
            fix = "remove it: MindSpore's scheduler would number the ranks anew by (pod_ip, DEVICE_ID)"
            self._fault(MINDSPORE, f"{path}.pod_ip", server["pod_ip"], fix)
        self._ports(server, path)
        devices = server.get("device", ABSENT)
        if not isinstance(devices, list) or not devices:
            code = missing_or_invalid(devices)
            self._fault(code, f"{path}.device", devices, "list at least one device")
            return
        ids: list[int] = []
        for index, device in enumerate(devices):
            self._device(device, f"{path}.device[{index}]", ids)
        self.groups.append((path, ids))

    def _server_id(self, value: Any, path: str) -> None:
        if not isinstance(value, str) or not 1 <= len(value) <= _MOST_SERVER_ID_CHARACTERS:
            code = missing_or_invalid(value)
            self._fault(code, path, value, f"write a string of 1 to {_MOST_SERVER_ID_CHARACTERS} characters")
            return
        if value in self._server_ids:
            self._fault(INVALID, path, value, f"also at {self._server_ids[value]}; name each server once")
        elif value < self._last_server_id:
            fix = f"ranks follow the dictionary order of server_id; put it before {self._last_server_id!r}"
            self._fault(MINDSPORE, path, value, fix)
        self._server_ids.setdefault(value, path)
        self._last_server_id = max(value, self._last_server_id)

    def _device(self, device: Any, path: str, ids: list[int]) -> None:
        if not isinstance(device, dict):
            self._fault(INVALID, path, device, "write an object with device_id, device_ip and rank_id")
            self._next_rank += 1
            return
        self._device_id(device.get("device_id", ABSENT), f"{path}.device_id", ids)
        self._address(device.get("device_ip", ABSENT), f"{path}.device_ip")
        self._ports(device, path)
        if self.super_pods:
            self._required_number(device, "super_device_id", path, "write the id of the die in its super pod")
        rank = self._required_number(device, "rank_id", path, f'write "{self._next_rank}"')
        if rank is not None and rank != self._next_rank:
            fix = f'ranks count from 0 in the order of the table, each once; write "{self._next_rank}"'
            self._fault(INVALID, f"{path}.rank_id", device["rank_id"], fix)
        self._next_rank += 1

    def _device_id(self, value: Any, path: str, ids: list[int]) -> None:
        number = decimal(value)
        if number is None:
            self._fault(missing_or_invalid(value), path, value, 'write the physical id, as in "0"')
            return
        if self.soc == "910a" and number > device_groups.HIGHEST_ID_910A:
            fix = f"910A has devices 0 to {device_groups.HIGHEST_ID_910A}; write the physical id"
            self._fault(INVALID, path, value, fix)
        if number in ids:
            self._fault(INVALID, path, value, "the server lists this device twice; name each once")
        ids.append(number)

    def _address(self, value: Any, path: str) -> None:
        if value is ABSENT and not self.needs_ip:
            return
        address = ip_address(value)
        if address is None:
            why = "with several servers, and always on 910A, a device needs its address"
            code, fix = (MISSING, why) if value is ABSENT else (INVALID, "write an IPv4 or IPv6 address")
            self._fault(code, path, value, f"{fix} (hccn_tool -i <device> -ip -g shows it)")
            return
        if address in self._addresses:
            fix = f"also at {self._addresses[address]}; each device has an address of its own"
            self._fault(INVALID, path, value, fix)
        self._addresses.setdefault(address, path)
        self._family = self._family or address.version
        if address.version != self._family:
            self._fault(FAMILIES, path, value, f"the table began with IPv{self._family}; use one IP family")

    def _ports(self, holder: dict[str, Any], path: str) -> None:
        for key in PORT_KEYS:
            if key in holder and not 1 <= (decimal(holder[key]) or 0) <= 65535:
                self._fault(INVALID, f"{path}.{key}", holder[key], 'write a port from "1" to "65535"')

    def _required_number(self, holder: dict[str, Any], key: str, path: str, fix: str) -> int | None:
        value = holder.get(key, ABSENT)
        number = decimal(value)
        if number is None:
            self._fault(missing_or_invalid(value), f"{path}.{key}", value, fix)
        return number

    def _fault(self, code: str, path: str, value: Any, fix: str) -> None:
        self.faults.append(Fault(code, path, value, fix))


def _group_faults(reader: _ServerReader, soc: Soc | None) -> Iterator[Fault]:
    if soc is None:
        return
    first = len(reader.groups[0][1]) if reader.groups else 0
    for path, ids in reader.groups:
        if not device_groups.is_legal(ids, soc) and len(set(ids)) == len(ids):
            yield Fault(INVALID, f"{path}.device", sorted(ids), device_groups.rule(soc))
        elif soc == "910a" and len(ids) != first:
            fix = f"910A takes the same number of devices on each server; the first has {first}"
            yield Fault(INVALID, f"{path}.device", sorted(ids), fix)
