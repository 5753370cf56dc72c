"""Rank tables: what we build is legal, what we read is understood, what we merge agrees."""

import copy
import dataclasses
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.ascend.placement import AscendHost, Npu, Place, place
from orchestrator.ascend.rank_table.merge import merge_rank_tables
from orchestrator.ascend.rank_table.rules import faults_in_table, faults_in_text
from orchestrator.ascend.rank_table.table import (
    build_rank_table,
    hosts_of_table,
    read_rank_table,
    table_from_dict,
)
from orchestrator.errors import InputError
from tests.unit.rank_tables import LAB_FORM, TWO_PODS, TWO_SERVERS, built, device, host


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
    path.write_text(json.dumps(LAB_FORM))
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


def test_tables_of_single_servers_merge_in_the_order_of_the_files():
    tables = [built([host(number, [0, 1])], 2) for number in (110, 111)]
    assert merge_rank_tables(tables).to_dict() == TWO_SERVERS
    first = merge_rank_tables(tables[::-1]).to_dict()["server_list"][0]
    assert (first["server_id"], first["device"][0]["rank_id"]) == ("172.16.0.111", "0")


def test_super_pods_are_listed_in_the_order_of_their_ranks_and_stay_together():
    numbered = (("1", 1), ("0", 3), ("1", 4))
    tables = [built([host(number, [0, 1], pod=pod)], 2, "a3") for pod, number in numbered]
    merged = merge_rank_tables(tables, "a3").to_dict()
    assert [server["server_id"] for server in merged["server_list"]] == [
        "1/172.16.0.1", "1/172.16.0.4", "0/172.16.0.3",
    ]  # fmt: skip
    assert [pod["super_pod_id"] for pod in merged["super_pod_list"]] == ["1", "0"]


def test_a_merge_keeps_backup_addresses_ports_and_keys_that_it_does_not_know():
    kept = {
        "backup_device_ip": "192.168.110.2",
        "backup_device_port": "16667",
        "device_port": "16666",
        "host_port": "60001",
        "net_protocol": "tcp",
    }
    table = copy.deepcopy(TWO_SERVERS)
    table["server_list"][0]["device"][0] |= kept
    table["server_list"][0]["rack"] = {"row": 3}
    other = built([host(9, [0, 1])], 2)
    merged = merge_rank_tables([other, table_from_dict(table)]).to_dict()["server_list"][1]
    assert merged["device"][0] == table["server_list"][0]["device"][0] | {"rank_id": "2"}
    assert merged["rack"] == {"row": 3}


def test_a_merge_that_lets_a_backup_address_collide_is_refused():
    tables = []
    for number in (1, 2):
        table = built([host(number, [0, 1])], 2).to_dict()
        table["server_list"][0]["device"][0]["backup_device_ip"] = "10.9.9.9"
        tables.append(table_from_dict(table))
    with pytest.raises(InputError, match=r"server_list\[1\].device\[0\].backup_device_ip = '10.9.9.9'"):
        merge_rank_tables(tables)


def test_a_table_without_super_pods_keeps_version_1_2(tmp_path):
    table = {key: value for key, value in TWO_PODS.items() if key != "super_pod_list"}
    assert table_from_dict(table).to_dict() == table


def test_a_pair_across_the_rings_is_read_but_not_built():
    pair = host(1, [3, 4])
    places = tuple(
        Place(rank=rank, local_rank=rank, host=pair, npu=npu) for rank, npu in enumerate(pair.npus)
    )
    with pytest.raises(InputError, match="form no legal group; 910A takes"):
        build_rank_table(places, "910a")
    assert faults_in_table(built([pair], 2).to_dict(), "910a") == []


@pytest.mark.parametrize(
    ("others", "soc", "reported"),
    [
        ([host(1, [0, 1])], None, "table 1 and table 2 both contain the server .*; leave one out"),
        (
            [host(2, [0, 1], ip="192.168.1.{1}")],
            None,
            r"own address .*; server_list\[0\] is from table 1, server_list\[1\] is from table 2$",
        ),
        ([host(2, [0], ip="fe80::{1}")], None, "EI0001"),
        ([host(2, [0])], "910a", "same number of devices"),
        ([host(2, [0], pod="0")], None, "table 2 has a super_pod_list, table 1 has none; build them alike"),
    ],
)
def test_tables_that_contradict_each_other_do_not_merge(others, soc, reported):
    tables = [built([one], len(one.npus), "a3") for one in [host(1, [0, 1]), *others]]
    with pytest.raises(InputError, match=reported):
        merge_rank_tables(tables, soc)


def test_tables_of_one_version_that_differ_in_super_pods_are_named_when_they_do_not_merge():
    plain = table_from_dict(built([host(1, [0, 1])], 2).to_dict() | {"version": "1.2"})
    pods = table_from_dict(TWO_PODS)
    numbered = dataclasses.replace(pods, super_pods=())
    files = [Path("a.json"), Path("b.json")]
    for tables, reported in (
        ([plain, pods], "b.json has a super_pod_list, a.json has none; build them alike"),
        ([pods, numbered], "a.json has a super_pod_list, b.json has none; build them alike"),
        ([plain, numbered], "b.json has dies with a super_device_id, a.json has none; build them alike"),
    ):
        with pytest.raises(InputError, match=reported):
            merge_rank_tables(tables, files=files)


def test_a_table_says_which_hosts_it_is_about():
    assert hosts_of_table(table_from_dict(TWO_SERVERS)) == (host(110, [0, 1]), host(111, [0, 1]))
    assert {one.super_pod_id for one in hosts_of_table(table_from_dict(TWO_PODS))} == {"0", "1"}


@pytest.mark.parametrize(
    ("name", "reported"),
    [
        ("t.txt", "the path does not end in .json"),
        ("t.JSON", "the path does not end in .json"),
        ("t.json.bak", "the path does not end in .json"),
        (".json", "the path has no name before .json"),
        ("a.json.d/t.json", "the path contains .json twice"),
        ("t.json.json", "the path contains .json twice"),
        ("missing.json", r"cannot be read \(No such file"),
        ("folder.json", r"cannot be read \(not a file\)"),
        ("pipe.json", r"cannot be read \(not a file\)"),
        ("loop.json", "cannot be read"),
        ("link.json", r"its target .*/t.txt does not end in .json"),
        ("latin.json", "is not UTF-8, which HCCL reads; save it as UTF-8"),
        ("utf16.json", "is not UTF-8, which HCCL reads; save it as UTF-8"),
        ("utf16_without_mark.json", "is not UTF-8, which HCCL reads; save it as UTF-8"),
        ("huge.json", "has 100000001 bytes, more than any rank table; give a rank table file"),
    ],
)
def test_a_file_that_hccl_cannot_open_is_refused(tmp_path, name, reported):
    legal = json.dumps(TWO_SERVERS)
    for written in ("t.txt", "t.JSON", "t.json.bak", ".json", "a.json.d/t.json", "t.json.json"):
        (tmp_path / written).parent.mkdir(exist_ok=True)
        (tmp_path / written).write_text(legal)
    (tmp_path / "latin.json").write_bytes(b'{"x": "\xe9"}')
    (tmp_path / "utf16.json").write_bytes(legal.encode("utf-16"))
    (tmp_path / "utf16_without_mark.json").write_bytes(legal.encode("utf-16-le"))
    (tmp_path / "huge.json").touch()
    os.truncate(tmp_path / "huge.json", 100_000_001)
    (tmp_path / "folder.json").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "loop.json").symlink_to(tmp_path / "loop.json")
    (tmp_path / "link.json").symlink_to(tmp_path / "t.txt")
    with pytest.raises(InputError, match=f"{name}: EI0004: {reported}"):
        read_rank_table(tmp_path / name)


def test_a_link_with_another_name_is_read_when_its_target_ends_in_json(tmp_path):
    (tmp_path / "t.json").write_text("\ufeff" + json.dumps(TWO_SERVERS), encoding="utf-8")
    (tmp_path / "current").symlink_to(tmp_path / "t.json")
    assert read_rank_table(tmp_path / "current").to_dict() == TWO_SERVERS


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
