"""Builders of small rank tables: each builds the table of one case."""

import copy
from typing import Any

from orchestrator.ascend.device_groups import Soc
from tests.unit.rank_tables import CLOUD_FORM, LAB_FORM, device

LEGAL, WARNED = "legal", "warned"


class _Gone:
    def __repr__(self):
        return "GONE"


GONE = _Gone()


# A table, the chip of its devices, the verdict, and what the message names.
Case = tuple[Any, Soc | None, str, str]


def servers(*seats, **top):
    """A table of version 1.0; a server is (name, (device, rank), ...) and gets an address a device."""
    listed = [
        {
            "server_id": name,
            "device": [
                device(str(number), f"192.168.{place}.{number + 1}", str(rank)) for number, rank in devices
            ],
        }
        for place, (name, *devices) in enumerate(seats)
    ]
    return {"status": "completed", "version": "1.0", "server_list": listed, **top}


def one(ids=(0, 1), name="a"):
    return servers((name, *zip(ids, range(len(ids)), strict=True)))


def two(ids=(0, 1), others=None):
    others = ids if others is None else others
    return servers(
        ("a", *zip(ids, range(len(ids)), strict=True)),
        ("b", *zip(others, range(len(ids), len(ids) + len(others)), strict=True)),
    )


def changed(table, path, value):
    """A copy with another value at `a/0/b`; None of Python is null, GONE removes the key."""
    table = copy.deepcopy(table)
    *parents, key = [int(part) if part.isdecimal() else part for part in path.split("/")]
    holder = table
    for parent in parents:
        holder = holder[parent]
    if value is GONE:
        del holder[key]
    else:
        holder[key] = value
    return table


def with_ips(table, *ips):
    """The same table with these addresses, device by device; GONE removes the key."""
    table, wanted = copy.deepcopy(table), iter(ips)
    for server in table["server_list"]:
        for entry in server["device"]:
            ip = next(wanted)
            if ip is GONE:
                del entry["device_ip"]
            else:
                entry["device_ip"] = ip
    return table


def pods(*listed, seats=(("a", 0), ("b", 1)), dies=("16", "17"), **top):
    """Version 1.2: one device on each server of `seats` (name, rank); a pod is (id, server, ...)."""
    table = servers(*((name, (0, rank)) for name, rank in seats), version="1.2")
    for server, die in zip(table["server_list"], dies, strict=True):
        if die is not GONE:
            server["device"][0]["super_device_id"] = die
    table["super_pod_list"] = [
        {"super_pod_id": pod_id, "server_list": [{"server_id": name} for name in names]}
        for pod_id, *names in listed
    ]
    return {**table, **top}


def cloud(**change):
    return {**CLOUD_FORM, **change}


def in_cloud(path, value):
    return changed(CLOUD_FORM, f"group_list/0/{path}", value)


def in_lab(path, value):
    return changed(LAB_FORM, f"group_list/0/{path}", value)


def with_device(key, value, table=None):
    """A key of the first device."""
    return changed(table or one(), f"server_list/0/device/0/{key}", value)


def with_server(key, value):
    """A key of the only server."""
    return changed(one(), f"server_list/0/{key}", value)
