"""Rank tables: what we build is legal, what HCCL would refuse is refused by code, path and fix."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.ascend.placement import AscendHost, Npu, place
from orchestrator.ascend.rank_table import (
    build_rank_table,
    hosts_of_table,
    merge_rank_tables,
    read_rank_table,
    table_from_dict,
)
from orchestrator.ascend.rank_table_rules import faults_in_table, faults_in_text
from sdnet.errors import InputError


def host(number, devices=range(8), pod=None, ip="192.168.{}.{}"):
    npus = tuple(
        Npu(
            device_id=device,
            device_ip=ip.format(number % 250, number // 250 * 20 + device + 1),
            super_device_id=None if pod is None else number * 16 + device,
        )
        for device in devices
    )
    return AscendHost(address=f"172.16.{number // 250}.{number % 250}", npus=npus, super_pod_id=pod)


def built(hosts, workers, soc="910b"):
    return build_rank_table(place(hosts, workers, soc), soc)


def device(device_id, ip, rank, **more):
    return {"device_id": device_id, "device_ip": ip, **more, "rank_id": rank}


TWO_SERVERS = {
    "status": "completed",
    "version": "1.0",
    "server_count": "2",
    "server_list": [
        {
            "server_id": "172.16.0.110",
            "host_ip": "172.16.0.110",
            "device": [device("0", "192.168.110.1", "0"), device("1", "192.168.110.2", "1")],
        },
        {
            "server_id": "172.16.0.111",
            "host_ip": "172.16.0.111",
            "device": [device("0", "192.168.111.1", "2"), device("1", "192.168.111.2", "3")],
        },
    ],
}
TWO_PODS = {
    "status": "completed",
    "version": "1.2",
    "server_count": "3",
    "server_list": [
        {
            "server_id": f"{pod}/172.16.0.{number}",
            "host_ip": f"172.16.0.{number}",
            "device": [
                device("0", f"192.168.{number}.1", str(2 * index), super_device_id=str(16 * number)),
                device("1", f"192.168.{number}.2", str(2 * index + 1), super_device_id=str(16 * number + 1)),
            ],
        }
        for index, (pod, number) in enumerate([("0", 2), ("0", 3), ("1", 1)])
    ],
    "super_pod_list": [
        {
            "super_pod_id": "0",
            "server_list": [{"server_id": "0/172.16.0.2"}, {"server_id": "0/172.16.0.3"}],
        },
        {"super_pod_id": "1", "server_list": [{"server_id": "1/172.16.0.1"}]},
    ],
}
OLD_FORM = {
    "board_id": "0x0020",
    "chip_info": "910",
    "deploy_mode": "lab",
    "group_count": "1",
    "group_list": [
        {
            "device_num": "2",
            "server_num": "1",
            "instance_count": "2",
            "instance_list": [
                {
                    "devices": [{"device_id": str(i), "device_ip": f"192.{i}.27.6"}],
                    "rank_id": str(i),
                    "server_id": "10.1.1.4",
                }
                for i in (0, 1)
            ],
        }
    ],
    "status": "completed",
}


def test_a_table_of_servers_is_written_as_hccl_reads_it():
    assert built([host(111, [0, 1]), host(110, [0, 1])], 4).to_dict() == TWO_SERVERS


def test_a_table_of_super_pods_keeps_pods_together():
    hosts = [host(1, [0, 1], pod="1"), host(2, [0, 1], pod="0"), host(3, [0, 1], pod="0")]
    assert built(hosts, 6, "a3").to_dict() == TWO_PODS


def test_a_table_survives_writing_and_reading(tmp_path):
    path = tmp_path / "table.json"
    for table in (TWO_SERVERS, TWO_PODS):
        path.write_text(json.dumps(table))
        assert read_rank_table(path).to_dict() == table


def test_a_group_over_servers_needs_the_address_of_every_device():
    bare = [AscendHost(address=f"10.0.0.{n}", npus=(Npu(device_id=0),)) for n in (1, 2)]
    with pytest.raises(InputError, match=r"EI0017 .*server_list\[0\].device\[0\].device_ip = \(missing\)"):
        built(bare, 2)
    assert built(bare[:1], 1).to_dict()["server_list"][0]["device"] == [{"device_id": "0", "rank_id": "0"}]


def test_hosts_in_and_out_of_super_pods_do_not_mix():
    places = place([host(1, pod="0"), host(2)], 16, "a3")
    with pytest.raises(InputError, match=r"host 172.16.0.2 is in no super pod"):
        build_rank_table(places, "a3")


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 100_000, "9" * 5000, "\x00", '{"a": NaN'])
def test_text_that_is_no_table_is_a_fault_and_no_traceback(text):
    assert {fault.code for fault in faults_in_text(text)} == {"EI0004"}


def test_tables_of_other_kinds_are_refused_by_name():
    for version, name in (("2.0", "950"), ("1.1", "heterogeneous")):
        (fault,) = faults_in_table({**TWO_SERVERS, "version": version})
        assert (fault.code, fault.path) == ("EI0014", "$.version")
        assert name in fault.fix


def at(table, path):
    """The container of the last key of a path, and that key."""
    for key in path[:-1]:
        table = table[key]
    return table, path[-1]


SERVER = ("server_list", 1)
DEVICE = (*SERVER, "device", 1)
POD = ("super_pod_list", 0)
REMOVED = object()
# (path, new value, code): one change that HCCL (or MindSpore) would not start from.
MUTATIONS_OF_ANY = [
    (("status",), REMOVED, "EI0017"),
    (("status",), "done", "EI0014"),
    (("version",), REMOVED, "EI0017"),
    (("version",), "1.3", "EI0014"),
    (("version",), 1.0, "EI0014"),
    (("server_count",), REMOVED, "EI0017"),
    (("server_count",), "7", "EI0014"),
    (("server_count",), "-1", "EI0014"),
    (("server_list",), REMOVED, "EI0017"),
    (("server_list",), [], "EI0014"),
    (SERVER, "172.16.0.111", "EI0014"),
    ((*SERVER, "server_id"), REMOVED, "EI0017"),
    ((*SERVER, "server_id"), "", "EI0014"),
    ((*SERVER, "server_id"), "9" * 65, "EI0014"),
    ((*SERVER, "server_id"), 111, "EI0014"),
    ((*SERVER, "server_id"), "!before", "MindSpore"),
    ((*SERVER, "pod_ip"), "10.0.0.1", "MindSpore"),
    ((*SERVER, "host_ip"), "host-1", "EI0014"),
    ((*SERVER, "host_ip"), "::1", "EI0014"),
    ((*SERVER, "host_port"), "0", "EI0014"),
    ((*SERVER, "device"), REMOVED, "EI0017"),
    ((*SERVER, "device"), [], "EI0014"),
    (DEVICE, "1", "EI0014"),
    ((*DEVICE, "device_id"), REMOVED, "EI0017"),
    ((*DEVICE, "device_id"), "0", "EI0014"),
    ((*DEVICE, "device_id"), "one", "EI0014"),
    ((*DEVICE, "device_id"), "-1", "EI0014"),
    ((*DEVICE, "device_id"), 1, "EI0014"),
    ((*DEVICE, "device_ip"), REMOVED, "EI0017"),
    ((*DEVICE, "device_ip"), "", "EI0014"),
    ((*DEVICE, "device_ip"), "192.168.1", "EI0014"),
    ((*DEVICE, "device_ip"), "192.168.1.256", "EI0014"),
    ((*DEVICE, "device_ip"), "2001:db8::1", "EI0001"),
    ((*DEVICE, "device_port"), "65536", "EI0014"),
    ((*DEVICE, "backup_device_port"), 16666, "EI0014"),
    ((*DEVICE, "rank_id"), REMOVED, "EI0017"),
    ((*DEVICE, "rank_id"), "0", "EI0014"),
    ((*DEVICE, "rank_id"), "99", "EI0014"),
    ((*DEVICE, "rank_id"), 3, "EI0014"),
]
MUTATIONS_OF_PODS = [
    ((*DEVICE, "super_device_id"), REMOVED, "EI0017"),
    ((*DEVICE, "super_device_id"), "0x10", "EI0014"),
    ((*DEVICE, "super_device_id"), "48", "EI0014"),
    (("super_pod_list",), REMOVED, "EI0017"),
    (("super_pod_list",), [], "EI0014"),
    ((*POD, "super_pod_id"), REMOVED, "EI0017"),
    ((*POD, "super_pod_id"), "", "EI0014"),
    ((*POD, "super_pod_id"), 0, "EI0014"),
    ((*POD, "super_pod_id"), "1", "EI0014"),
    ((*POD, "server_list"), REMOVED, "EI0017"),
    ((*POD, "server_list"), [], "EI0014"),
    ((*POD, "server_list", 1), {"server_id": "1/172.16.0.1"}, "EI0014"),
    ((*POD, "server_list", 1), {"server_id": "nowhere"}, "EI0014"),
    ((*POD, "server_list", 1), {}, "EI0017"),
    ((*POD, "server_list", 1), "0/172.16.0.3", "EI0017"),
]


@pytest.mark.parametrize(
    ("table", "path", "value", "code"),
    [
        *((TWO_SERVERS, *mutation) for mutation in MUTATIONS_OF_ANY),
        *((TWO_PODS, *mutation) for mutation in MUTATIONS_OF_ANY + MUTATIONS_OF_PODS),
    ],
)
def test_one_wrong_value_is_refused_with_hccls_code(table, path, value, code):
    mutant = copy.deepcopy(table)
    holder, key = at(mutant, path)
    if value is REMOVED:
        del holder[key]
    else:
        holder[key] = value
    faults = faults_in_table(mutant)
    assert code in {fault.code for fault in faults}
    assert all(fault.fix and fault.path.startswith("$") for fault in faults)


def test_a_fault_names_code_path_value_and_fix():
    mutant = copy.deepcopy(TWO_SERVERS)
    mutant["server_list"][1]["device"][1]["device_ip"] = "192.168.110.1"
    (fault,) = faults_in_table(mutant)
    assert str(fault) == (
        "EI0014 $.server_list[1].device[1].device_ip = '192.168.110.1': also at "
        "$.server_list[0].device[0].device_ip; each device has an address of its own"
    )


def test_every_fault_of_a_table_is_listed_and_a_reader_is_told_their_number(tmp_path):
    mutant = {**copy.deepcopy(TWO_SERVERS), "status": "?", "server_count": "3"}
    del mutant["server_list"][0]["device"][0]["rank_id"]
    assert len(faults_in_table(mutant)) == 3
    path = tmp_path / "t.json"
    path.write_text(json.dumps(mutant))
    with pytest.raises(InputError, match=r"EI0014 \$.status = .*and 2 more faults"):
        read_rank_table(path)


@pytest.mark.parametrize(
    ("ids", "soc", "legal"),
    [
        ([0, 1], "910a", True),
        ([3, 4], "910a", False),
        ([0, 1, 2], "910a", False),
        ([0, 1, 2], "910b", True),
        ([0, 3, 4, 7], "910a", True),
        ([0, 1, 2, 4], "910a", False),
        ([8], "910a", False),
        ([8], "910b", True),
        (range(9), "910b", False),
        (range(16), "a3", True),
    ],
)
def test_groups_of_devices_follow_the_chip(ids, soc, legal):
    devices = [device(str(i), f"10.1.1.{i + 1}", str(rank)) for rank, i in enumerate(ids)]
    table = {**TWO_SERVERS, "server_count": "1", "server_list": [{"server_id": "a", "device": devices}]}
    assert (faults_in_table(table, soc) == []) is legal


def test_910a_takes_the_same_number_of_devices_on_each_server_and_no_super_pods():
    mutant = copy.deepcopy(TWO_SERVERS)
    del mutant["server_list"][1]["device"][1]
    assert faults_in_table(mutant, "910b") == []
    assert [fault.path for fault in faults_in_table(mutant, "910a")] == ["$.server_list[1].device"]
    assert [fault.path for fault in faults_in_table(TWO_PODS, "910a")] == ["$.version"]


def test_servers_of_one_super_pod_stand_together():
    mutant = copy.deepcopy(TWO_PODS)
    for pod, members in zip(mutant["super_pod_list"], ([0, 2], [1]), strict=True):
        pod["server_list"] = [{"server_id": mutant["server_list"][m]["server_id"]} for m in members]
    assert [fault.fix for fault in faults_in_table(mutant)] == [
        "the servers of one super pod must stand together"
    ]


def test_the_reserve_card_of_older_generators_is_ignored():
    old = copy.deepcopy(TWO_SERVERS)
    for server in old["server_list"]:
        server["host_nic_ip"] = server.pop("host_ip") and "reserve"
    assert faults_in_table(old) == []
    assert (
        table_from_dict(old).to_dict()["server_list"][0]["device"] == TWO_SERVERS["server_list"][0]["device"]
    )


def test_the_old_group_list_is_read_and_written_as_version_one(tmp_path):
    path = tmp_path / "old.json"
    path.write_text(json.dumps(OLD_FORM))
    assert read_rank_table(path, "910a").to_dict() == {
        "status": "completed",
        "version": "1.0",
        "server_count": "1",
        "server_list": [
            {
                "server_id": "10.1.1.4",
                "device": [device("0", "192.0.27.6", "0"), device("1", "192.1.27.6", "1")],
            }
        ],
    }


def test_an_old_table_with_several_devices_an_instance_is_numbered_in_its_order():
    instance = {"pod_name": "p", "server_id": "a", "devices": [{"device_id": "0"}, {"device_id": "1"}]}
    table = {"status": "completed", "group_list": [{"instance_list": [instance]}]}
    assert faults_in_table(table) == []
    assert table_from_dict(table).world_size == 2


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"group_list": []}, "EI0014"),
        ({"group_list": [{}]}, "EI0017"),
        ({"group_list": [{"instance_list": [{"devices": [{}]}]}]}, "EI0017"),
        ({"group_list": [{"instance_list": [{"devices": [3], "server_id": "a"}]}]}, "EI0014"),
        ({"group_list": [{"instance_list": [{"devices": [{"device_id": 3}], "server_id": "a"}]}]}, "EI0014"),
        ({"group_list": OLD_FORM["group_list"] * 2}, "EI0014"),
        ({"status": "?"}, "EI0014"),
    ],
)
def test_a_broken_old_table_is_refused(change, code):
    assert code in {fault.code for fault in faults_in_table({**OLD_FORM, **change})}


def test_tables_of_single_servers_merge_in_dictionary_order():
    tables = [built([host(number, [0, 1])], 2) for number in (111, 110)]
    assert merge_rank_tables(tables).to_dict() == TWO_SERVERS


def test_tables_of_super_pods_merge_by_pod():
    numbered = (("1", 1), ("0", 3), ("0", 2))
    tables = [built([host(number, [0, 1], pod=pod)], 2, "a3") for pod, number in numbered]
    assert merge_rank_tables(tables, "a3").to_dict()["server_list"] == TWO_PODS["server_list"]


@pytest.mark.parametrize(
    ("others", "soc", "told"),
    [
        ([host(1, [0, 1])], None, "name each server once"),
        ([host(2, [0, 1], ip="192.168.1.{1}")], None, "each device has an address of its own"),
        ([host(2, [0], ip="fe80::{1}")], None, "EI0001"),
        ([host(2, [0])], "910a", "same number of devices"),
        ([host(2, [0], pod="0")], None, "1.0 and 1.2 cannot be merged"),
    ],
)
def test_tables_that_contradict_each_other_do_not_merge(others, soc, told):
    tables = [built([one], len(one.npus), "a3") for one in [host(1, [0, 1]), *others]]
    with pytest.raises(InputError, match=told):
        merge_rank_tables(tables, soc)


def test_a_table_says_which_hosts_it_is_about():
    assert hosts_of_table(table_from_dict(TWO_SERVERS)) == (host(110, [0, 1]), host(111, [0, 1]))
    assert {one.super_pod_id for one in hosts_of_table(table_from_dict(TWO_PODS))} == {"0", "1"}


@pytest.mark.parametrize(("name", "text"), [("t.txt", "{}"), ("missing.json", None), ("t.json", b"\xff")])
def test_a_file_that_hccl_cannot_open_is_refused(tmp_path, name, text):
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match="EI0004"):
        read_rank_table(path)


def clusters(pods):
    return st.lists(st.tuples(st.sets(st.integers(0, 7), min_size=1), pods), min_size=1, max_size=5).map(
        lambda items: [host(n, sorted(ids), pod=pod) for n, (ids, pod) in enumerate(items, start=1)]
    )


@given(hosts=st.one_of(clusters(st.none()), clusters(st.sampled_from(["0", "1", "10"]))), data=st.data())
def test_every_table_that_is_built_is_legal(hosts, data):
    workers = data.draw(st.integers(1, sum(len(one.npus) for one in hosts)))
    table = built(hosts, workers, "a3")
    assert faults_in_text(table.to_json(), "a3") == []
    assert table.world_size == workers
    assert table_from_dict(json.loads(table.to_json())) == table


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["server_id", "device", "device_id", "server_list"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


def paths_of(value, prefix=()):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield (*prefix, key)
        yield from paths_of(child, (*prefix, key))


@settings(max_examples=300)
@given(table=st.sampled_from([TWO_SERVERS, TWO_PODS, OLD_FORM]), data=st.data())
def test_whatever_stands_anywhere_in_a_table_it_is_judged_without_a_traceback(table, data):
    mutant = copy.deepcopy(table)
    holder, key = at(mutant, data.draw(st.sampled_from(list(paths_of(table)))))
    holder[key] = data.draw(json_values)
    faults = faults_in_table(mutant, data.draw(st.sampled_from([None, "910a", "910b", "a3"])))
    assert all(str(fault) for fault in faults)
    if not faults:
        assert table_from_dict(mutant).world_size >= 1


@given(table=st.sampled_from([TWO_SERVERS, TWO_PODS]), data=st.data())
def test_a_scalar_that_is_not_a_string_is_refused_wherever_it_stands(table, data):
    mutant = copy.deepcopy(table)
    scalars = [path for path in paths_of(table) if isinstance(at(table, path)[0][path[-1]], str)]
    holder, key = at(mutant, data.draw(st.sampled_from(scalars)))
    holder[key] = data.draw(st.integers() | st.floats() | st.booleans() | st.none())
    assert faults_in_table(mutant)
