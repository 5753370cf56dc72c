"""What HCCL asks of the super pods in a rank table of version 1.2."""

from collections.abc import Iterator
from typing import Any

from orchestrator.ascend.rank_table_fault import ABSENT, INVALID, Fault, decimal, missing_or_invalid


def super_pod_faults(pods: Any, servers: list[Any]) -> Iterator[Fault]:
    """Faults of `super_pod_list`, given the table's server_list (which may itself have faults)."""
    path = "$.super_pod_list"
    if not isinstance(pods, list) or not pods:
        yield Fault(missing_or_invalid(pods), path, pods, "list the super pods and their servers")
        return
    dies = _dies_by_server(servers)
    pod_of: dict[str, int] = {}
    pod_ids: set[str] = set()
    for index, pod in enumerate(pods):
        fields = pod if isinstance(pod, dict) else {}
        pod_id = fields.get("super_pod_id", ABSENT)
        if not isinstance(pod_id, str) or not pod_id or pod_id in pod_ids:
            fix = "write a string that no other super pod has"
            yield Fault(missing_or_invalid(pod_id), f"{path}[{index}].super_pod_id", pod_id, fix)
        else:
            pod_ids.add(pod_id)
        yield from _member_faults(fields.get("server_list", ABSENT), f"{path}[{index}]", index, pod_of, dies)
    for server_id in dies:
        if server_id not in pod_of:
            yield Fault(INVALID, path, server_id, "this server is in no super pod; list it in its own")
    if _split_pods(pod_of, dies):
        yield Fault(INVALID, "$.server_list", list(dies), "the servers of one super pod must stand together")


def _dies_by_server(servers: list[Any]) -> dict[str, list[int]]:
    """super_device_ids of each server that can be read, in the order of the table."""
    dies: dict[str, list[int]] = {}
    for server in servers:
        server_id = server.get("server_id") if isinstance(server, dict) else None
        if isinstance(server_id, str):
            devices = server.get("device")
            entries = [d for d in devices if isinstance(d, dict)] if isinstance(devices, list) else []
            numbers = [decimal(entry.get("super_device_id")) for entry in entries]
            dies[server_id] = [number for number in numbers if number is not None]
    return dies


def _member_faults(
    members: Any, path: str, index: int, pod_of: dict[str, int], dies: dict[str, list[int]]
) -> Iterator[Fault]:
    """Faults of one pod's servers; notes in `pod_of` which pod each server belongs to."""
    if not isinstance(members, list) or not members:
        fix = "list the servers of this super pod"
        yield Fault(missing_or_invalid(members), f"{path}.server_list", members, fix)
        return
    seen: set[int] = set()
    for place, entry in enumerate(members):
        where = f"{path}.server_list[{place}].server_id"
        server_id = entry.get("server_id", ABSENT) if isinstance(entry, dict) else ABSENT
        if not isinstance(server_id, str):
            yield Fault(missing_or_invalid(server_id), where, server_id, "name a server")
        elif server_id not in dies:
            yield Fault(INVALID, where, server_id, "no such server in server_list; name one that is there")
        elif server_id in pod_of:
            yield Fault(INVALID, where, server_id, "this server is already in a super pod; list it once")
        else:
            pod_of[server_id] = index
            numbers = dies[server_id]
            if seen & set(numbers) or len(set(numbers)) < len(numbers):
                fix = "a super_device_id of this server is used twice in its super pod; number each die once"
                yield Fault(INVALID, where, server_id, fix)
            seen.update(numbers)


def _split_pods(pod_of: dict[str, int], dies: dict[str, list[int]]) -> bool:
    """True when a server of another pod stands between two of one pod."""
    order = [pod_of[server_id] for server_id in dies if server_id in pod_of]
    runs = [pod for place, pod in enumerate(order) if place == 0 or order[place - 1] != pod]
    return len(runs) != len(set(runs))
