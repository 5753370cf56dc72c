"""Rank tables: what we build is legal, what we read is understood, what we merge agrees."""

import copy
import json

import pytest
from hypothesis import given
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
from tests.unit.rank_tables import OLD_FORM, TWO_PODS, TWO_SERVERS, built, device, host


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
