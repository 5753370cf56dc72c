"""HCCL's rules for the old `group_list` form that version 1.0 does not have."""

from collections.abc import Iterator

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

GROUP_LIST = "group_list"
_MOST_NAME_BYTES = 127
_HIGHEST_ID = 7
# Average numbers of devices per server that HCCL accepts in the lab form.
_LAB_DEVICES_PER_SERVER = (1, 2, 4, 8, 16)


def list_at(parent: object, key: str) -> list[object]:
    """The list under a key; empty if there is none."""
    value = parent.get(key) if isinstance(parent, dict) else None
    return value if isinstance(value, list) else []


def old_form_faults(table: dict[str, object], *, lab: bool) -> Iterator[Fault]:
    """Faults of the table's own keys and of its groups, without their instances."""
    groups = table.get(GROUP_LIST, ABSENT)
    if not isinstance(groups, list) or not groups:
        yield Fault(code_of_list(groups), f"$.{GROUP_LIST}", groups, "list at least one group")
        return
    yield from _count(table, "group_count", "$", len(groups))
    if lab:
        location = table.get("para_plane_nic_location", ABSENT)
        if location != "device":
            fix = 'write "device"; the lab form, which has a deploy_mode, needs it'
            yield Fault(code_of_text(location), "$.para_plane_nic_location", location, fix)
    names: set[str] = set()
    pods: set[str] = set()
    for index, group in enumerate(groups):
        path = f"$.{GROUP_LIST}[{index}]"
        if not isinstance(group, dict):
            yield Fault(MISSING, path, group, "write an object with group_name and instance_list")
            continue
        yield from _name(group, "group_name", path, names)
        yield from _group_faults(group, path, lab=lab)
        if not lab:
            for place, instance in enumerate(list_at(group, "instance_list")):
                if isinstance(instance, dict):
                    yield from _name(instance, "pod_name", f"{path}.instance_list[{place}]", pods)


def instance_faults(instance: object, path: str, *, lab: bool, alone: bool) -> Iterator[Fault]:
    """Faults of one instance. alone: its group has no other instance, so HCCL does not require device_ip."""
    if not isinstance(instance, dict):
        yield Fault(MISSING, path, instance, "write an object with server_id and devices")
        return
    devices = instance.get("devices", ABSENT)
    if not isinstance(devices, list) or not devices:
        yield Fault(code_of_list(devices), f"{path}.devices", devices, "list at least one device")
        return
    if lab and len(devices) != 1:
        yield Fault(INVALID, f"{path}.devices", devices, "give one device for one rank_id")
    for index, device in enumerate(devices):
        where = f"{path}.devices[{index}]"
        if not isinstance(device, dict):
            yield Fault(MISSING, where, device, "write an object with device_id and device_ip")
            continue
        number = decimal(device.get("device_id"))
        if number is not None and number > _HIGHEST_ID and not lab:
            fix = f"this form has devices 0 to {_HIGHEST_ID} only; write the table in version 1.0"
            yield Fault(INVALID, f"{where}.device_id", device["device_id"], fix)
        if "device_ip" not in device and (lab or not alone):
            fix = 'write the address, or "" when there is none; this form needs the key'
            yield Fault(MISSING, f"{where}.device_ip", ABSENT, fix)


def _group_faults(group: dict[str, object], path: str, *, lab: bool) -> Iterator[Fault]:
    instances = group.get("instance_list", ABSENT)
    if not isinstance(instances, list) or not instances:
        fix = "list at least one instance"
        yield Fault(code_of_list(instances), f"{path}.instance_list", instances, fix)
        return
    devices = sum(len(list_at(instance, "devices")) for instance in instances)
    yield from _count(group, "instance_count", path, len(instances))
    yield from _count(group, "device_num" if lab else "device_count", path, devices)
    if lab:
        servers = {str(i.get("server_id")) for i in instances if isinstance(i, dict)}
        yield from _count(group, "server_num", path, len(servers))
        if servers and (devices % len(servers) or devices // len(servers) not in _LAB_DEVICES_PER_SERVER):
            fix = "the lab form takes 1, 2, 4, 8 or 16 devices on each server; write version 1.0"
            yield Fault(INVALID, f"{path}.device_num", group.get("device_num", ABSENT), fix)


def _count(holder: dict[str, object], key: str, path: str, true_count: int) -> Iterator[Fault]:
    value = holder.get(key, ABSENT)
    if decimal(value) != true_count:
        fix = f'write "{true_count}", the true number, as a string'
        yield Fault(code_of_text(value), f"{path}.{key}", value, fix)


def _name(holder: dict[str, object], key: str, path: str, seen: set[str]) -> Iterator[Fault]:
    value = holder.get(key, ABSENT)
    if not isinstance(value, str) or size_in_bytes(value) > _MOST_NAME_BYTES:
        fix = f"write a string of at most {_MOST_NAME_BYTES} bytes"
        yield Fault(code_of_text(value), f"{path}.{key}", value, fix)
    elif value in seen:
        yield Fault(INVALID, f"{path}.{key}", value, "used twice; give each its own")
    else:
        seen.add(value)
