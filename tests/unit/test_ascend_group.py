"""A generation of the group follows from where its workers run: table, CPUs, host-local groups."""

import dataclasses

import pytest

from orchestrator.ascend.group import ascend_group, ranks_by_host
from orchestrator.ascend.inventory.device_report import DeviceReport, HostInventory
from orchestrator.errors import InputError


def inventory(number, health="OK"):
    devices = tuple(
        DeviceReport(
            device_id=device, model="910B4", health=health if device == 3 else "OK",
            address=f"192.168.{number}.{device + 1}", numa_node=device // 2, link="UP", net_health="Success",
        )
        for device in range(4)
    )  # fmt: skip
    cpus: dict[int, tuple[int, ...]] = {0: (0, 1, 2, 3), 1: (4, 5, 6, 7)}
    return HostInventory(address=f"10.0.0.{number}", devices=devices, numa_cpus=cpus, memory_bytes=2**30)


def test_the_table_holds_the_devices_that_the_workers_have():
    group = ascend_group(
        [inventory(1), inventory(2)], [("10.0.0.1", 0), ("10.0.0.1", 3), ("10.0.0.2", 2)], "910b"
    )
    assert [
        (server["server_id"], [(d["device_id"], d["rank_id"]) for d in server["device"]])
        for server in group.table.to_dict()["server_list"]
    ] == [("10.0.0.1", [("0", "0"), ("3", "1")]), ("10.0.0.2", [("2", "2")])]
    assert group.cpus == ((0, 1, 2, 3), (4, 5, 6, 7), (4, 5, 6, 7))


def test_without_a_host_the_table_has_the_survivors_with_new_numbers():
    survivors = ascend_group([inventory(2)], [("10.0.0.2", device) for device in range(4)], "910b")
    assert [place.rank for place in survivors.places] == [0, 1, 2, 3]
    assert [server.server_id for server in survivors.table.servers] == ["10.0.0.2"]
    assert survivors.cpus == ((0, 1), (2, 3), (4, 5), (6, 7))


@pytest.mark.parametrize(
    ("workers", "reported"),
    [
        ([("10.0.0.2", 0), ("10.0.0.1", 0)], "worker 0 on NPU 0 of 10.0.0.2 must have rank 1"),
        ([("10.0.0.1", 3), ("10.0.0.2", 3)], r"rank 1 was placed on NPU 3 of 10.0.0.2, .*\(health Alarm\)"),
        ([("10.0.0.9", 0)], "10.0.0.9, which the inventory does not know"),
    ],
)
def test_workers_that_cannot_form_the_group_are_refused(workers, reported):
    with pytest.raises(InputError, match=reported):
        ascend_group([inventory(1), inventory(2, health="Alarm")], workers, "910b")


def test_ranks_follow_rays_numbers_and_the_table_holds_physical_ids():
    host = inventory(1)
    # A container that sees devices 1 and 3, which CANN happens to count downwards.
    seen = tuple(
        dataclasses.replace(host.devices[device], logical_id=number) for device, number in ((1, 1), (3, 0))
    )
    there = dataclasses.replace(host, devices=seen)
    workers = [("10.0.0.1", there.physical_id(number)) for number in (0, 1)]
    table = ascend_group([there], workers, "910b").table.to_dict()
    assert [(d["device_id"], d["rank_id"]) for d in table["server_list"][0]["device"]] == [
        ("3", "0"),
        ("1", "1"),
    ]


def test_ranks_of_a_host_form_a_group_of_their_own():
    assert ranks_by_host(["a", "a", "b"]) == {"a": (0, 1), "b": (2,)}
