"""HCCL's rules for the super pods in a rank table of version 1.2."""

from collections.abc import Iterator
from typing import Any

from orchestrator.ascend.rank_table.fault import (
    ABSENT,
    INVALID,
    MISSING,
    Fault,
    code_of_list,
    code_of_text,
    decimal,
    size_in_bytes,
)

_MOST_POD_ID_BYTES = 127


def lists_super_pods(table: dict[str, object]) -> bool:
    """Whether a table has a list of super pods. Without it HCCL treats the servers as plain ones."""
    return table.get("version") == "1.2" and table.get("super_pod_list") not in (None, [])


def is_one_super_pod(table: dict[str, object]) -> bool:
    """Whether the table lists exactly one super pod. Its dies communicate without device_ip."""
    pods = table.get("super_pod_list")
    return lists_super_pods(table) and isinstance(pods, list) and len(pods) == 1


def super_pod_faults(pods: object, servers: list[object]) -> Iterator[Fault]:
    """Faults of `super_pod_list`, given the table's server_list (which may itself have faults)."""
    path = "$.super_pod_list"
    if not isinstance(pods, list):
        yield Fault(MISSING, path, pods, "list the super pods and their servers, or leave it out")
        return
    dies = _dies_by_server(servers)
    pod_of: dict[str, int] = {}
    pod_ids: set[str] = set()
    for index, pod in enumerate(pods):
        fields = pod if isinstance(pod, dict) else {}
        pod_id = fields.get("super_pod_id", ABSENT)
        where = f"{path}[{index}].super_pod_id"
        if not isinstance(pod_id, str) or not 1 <= size_in_bytes(pod_id) <= _MOST_POD_ID_BYTES:
            fix = f"write a string of 1 to {_MOST_POD_ID_BYTES} bytes"
            yield Fault(code_of_text(pod_id), where, pod_id, fix)
        elif pod_id in pod_ids:
            yield Fault(INVALID, where, pod_id, "an earlier super pod has this id; write another")
        else:
            pod_ids.add(pod_id)
        yield from _member_faults(fields.get("server_list", ABSENT), f"{path}[{index}]", index, pod_of, dies)
    for server_id in dies:
        if server_id not in pod_of:
            yield Fault(INVALID, path, server_id, "this server is in no super pod; list it in its own")
    yield from _order_faults([pod_of[server_id] for server_id in dies if server_id in pod_of], list(dies))


# Path and super_device_id of a device.
_Die = tuple[str, int]


def _dies_by_server(servers: list[Any]) -> dict[str, list[_Die]]:
    """The dies of each server whose super_device_id can be parsed, in the order of the table."""
    dies: dict[str, list[_Die]] = {}
    for index, server in enumerate(servers):
        server_id = server.get("server_id") if isinstance(server, dict) else None
        if isinstance(server_id, str):
            devices = server.get("device")
            entries = devices if isinstance(devices, list) else []
            dies[server_id] = [
                (f"$.server_list[{index}].device[{place}].super_device_id", number)
                for place, entry in enumerate(entries)
                if isinstance(entry, dict) and (number := decimal(entry.get("super_device_id"))) is not None
            ]
    return dies


def _member_faults(
    members: Any, path: str, index: int, pod_of: dict[str, int], dies: dict[str, list[_Die]]
) -> Iterator[Fault]:
    """Faults of one pod's servers. Adds the pod of each server to `pod_of`."""
    if not isinstance(members, list) or not members:
        fix = "list the servers of this super pod"
        yield Fault(code_of_list(members), f"{path}.server_list", members, fix)
        return
    first_at: dict[int, str] = {}
    for place, entry in enumerate(members):
        where = f"{path}.server_list[{place}].server_id"
        server_id = entry.get("server_id", ABSENT) if isinstance(entry, dict) else ABSENT
        if not isinstance(server_id, str):
            yield Fault(code_of_text(server_id), where, server_id, "name a server")
        elif server_id not in dies:
            yield Fault(INVALID, where, server_id, "no such server in server_list; name one that is there")
        elif server_id in pod_of:
            yield Fault(INVALID, where, server_id, "this server is already in a super pod; list it once")
        else:
            pod_of[server_id] = index
            for die, number in dies[server_id]:
                if (first := first_at.setdefault(number, die)) != die:
                    fix = f"also at {first}; number each die of a super pod once"
                    yield Fault(INVALID, die, str(number), fix)


def _order_faults(pods: list[int], server_ids: list[str]) -> Iterator[Fault]:
    """pods: for each server, in order, the index of its pod in super_pod_list."""
    runs = [pod for place, pod in enumerate(pods) if place == 0 or pods[place - 1] != pod]
    if len(runs) != len(set(runs)):
        fix = "the servers of one super pod must be neighbours; list them one after the other"
        yield Fault(INVALID, "$.server_list", server_ids, fix)
    elif runs != sorted(runs):
        fix = "super pods are listed in the order of their ranks; sort super_pod_list so"
        yield Fault(INVALID, "$.super_pod_list", runs, fix)
