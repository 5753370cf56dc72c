"""The rank table's old form, `group_list` without a version, converted to the server_list of 1.0.

Two shapes were written by older generators: an instance a device, with its rank_id
(MindSpore's early hccl_tools), and an instance a pod, with several devices and no rank_id
(early HCCL controllers), which are numbered in the order they stand in.
"""

from typing import Any

from orchestrator.ascend.rank_table_fault import ABSENT, INVALID, Fault, FaultyTable, missing_or_invalid


def servers_from_group_list(table: dict[str, Any]) -> list[dict[str, Any]]:
    """The `server_list` that an old table means; raises FaultyTable when it means none.

    Values are passed on as they are: the rules of version 1.0 judge them afterwards.
    """
    groups = _list_at(table, "group_list", "$")
    if len(groups) != 1:
        raise FaultyTable(Fault(INVALID, "$.group_list", groups, "give exactly one group"))
    servers: dict[str, dict[str, Any]] = {}
    numbered = 0
    for index, instance in enumerate(_list_at(groups[0], "instance_list", "$.group_list[0]")):
        path = f"$.group_list[0].instance_list[{index}]"
        devices = _list_at(instance, "devices", path)
        server_id = instance.get("server_id", ABSENT)
        if not isinstance(server_id, str):
            fix = "give the server's id as a string"
            raise FaultyTable(Fault(missing_or_invalid(server_id), f"{path}.server_id", server_id, fix))
        if "rank_id" in instance and len(devices) != 1:
            raise FaultyTable(Fault(INVALID, f"{path}.devices", devices, "give one device for one rank_id"))
        server = servers.setdefault(server_id, {"server_id": server_id, "device": []})
        for device in devices:
            if not isinstance(device, dict):
                raise FaultyTable(Fault(INVALID, f"{path}.devices", device, "write an object"))
            server["device"].append({**device, "rank_id": instance.get("rank_id", str(numbered))})
            numbered += 1
    return list(servers.values())


def _list_at(parent: Any, key: str, path: str) -> list[Any]:
    value = parent.get(key, ABSENT) if isinstance(parent, dict) else ABSENT
    if not isinstance(value, list) or not value:
        fix = "give a list that is not empty, or write the table in version 1.0"
        raise FaultyTable(Fault(missing_or_invalid(value), f"{path}.{key}", value, fix))
    return value
