"""Converts the old form of a rank table, `group_list` without a version, to the server_list of version 1.0.

Two forms exist. Cloud (ModelArts, early HCCL controllers): an instance is a pod with its devices, and HCCL numbers the
ranks by (server_id, device_id), whatever the order in the file. Lab (MindSpore's early hccl_tools; it has a
`deploy_mode`): an instance is one device and has its rank.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from orchestrator.ascend.rank_table.fault import ABSENT, Fault, decimal
from orchestrator.ascend.rank_table.group_list_rules import (
    GROUP_LIST,
    instance_faults,
    list_at,
    old_form_faults,
)


@dataclass(slots=True)
class OldTable:
    """An old table, converted to 1.0. paths: from each path in `servers` to its path in the old table."""

    servers: list[dict[str, Any]] = field(default_factory=list)
    paths: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def original_path(self, path: str) -> str:
        """The path in the old table of a path in `servers`."""
        converted = path
        while converted not in self.paths:
            end = max(converted.rfind("."), converted.rfind("["))
            if end < 0:
                return path
            converted = converted[:end]
        return self.paths[converted] + path.removeprefix(converted)


@dataclass(frozen=True, slots=True)
class _Seat:
    """A device of the old table: its instance, and its path."""

    instance: dict[str, object]
    device: dict[str, object]
    instance_path: str
    path: str


def is_lab(table: dict[str, object]) -> bool:
    """Whether the table has a rank for each instance. HCCL decides this by `deploy_mode` alone."""
    return "deploy_mode" in table


def read_old_form(table: dict[str, object]) -> OldTable:
    """Convert an old table, and check the rules that only the old form has; never raises.

    Values are copied unchanged: the rules of version 1.0 check them afterwards.
    """
    old = OldTable()
    old.faults.extend(old_form_faults(table, lab=is_lab(table)))
    seats = list(_seats(table, old.faults))
    if not is_lab(table):
        seats.sort(key=_cloud_order)
    for rank, seat in enumerate(seats):
        _add(old, seat, seat.instance.get("rank_id", ABSENT) if is_lab(table) else str(rank))
    return old


def _seats(table: dict[str, object], faults: list[Fault]) -> Iterator[_Seat]:
    for group_index, group in enumerate(list_at(table, GROUP_LIST)):
        instances = list_at(group, "instance_list")
        for index, instance in enumerate(instances):
            path = f"$.{GROUP_LIST}[{group_index}].instance_list[{index}]"
            found = list(instance_faults(instance, path, lab=is_lab(table), alone=len(instances) == 1))
            faults.extend(found)
            if not isinstance(instance, dict):
                continue
            for place, device in enumerate(list_at(instance, "devices")):
                if isinstance(device, dict):
                    yield _Seat(instance, device, path, f"{path}.devices[{place}]")


def _cloud_order(seat: _Seat) -> tuple[bytes, int]:
    """The order of HCCL: servers sorted by the bytes of their id, devices of each sorted by number."""
    server_id = seat.instance.get("server_id")
    name = server_id if isinstance(server_id, str) else ""
    device = decimal(seat.device.get("device_id"))
    return name.encode("utf-8", "surrogatepass"), -1 if device is None else device


def _add(old: OldTable, seat: _Seat, rank: object) -> None:
    server_id = seat.instance.get("server_id", ABSENT)
    index = next((i for i, server in enumerate(old.servers) if server["server_id"] == server_id), None)
    if index is None:
        index = len(old.servers)
        old.servers.append({"server_id": server_id, "device": []})
        old.paths[f"$.server_list[{index}]"] = seat.instance_path
        old.paths[f"$.server_list[{index}].device"] = f"{seat.instance_path}.devices"
    devices = old.servers[index]["device"]
    converted = f"$.server_list[{index}].device[{len(devices)}]"
    old.paths[converted] = seat.path
    old.paths[f"{converted}.rank_id"] = f"{seat.instance_path}.rank_id"
    devices.append({**seat.device, "rank_id": rank})
