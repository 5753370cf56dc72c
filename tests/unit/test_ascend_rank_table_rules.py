"""What HCCL would refuse is refused with code, path and fix, anywhere in a table."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.ascend.rank_table.rules import faults_in_table, faults_in_text, judge_text
from orchestrator.ascend.rank_table.table import read_rank_table, table_from_dict
from orchestrator.errors import InputError
from tests.unit.rank_tables import LAB_FORM, TWO_PODS, TWO_SERVERS, device


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 100_000, "9" * 5000, "\x00", '{"a": NaN'])
def test_text_that_is_no_table_is_a_fault_and_no_traceback(text):
    assert {fault.code for fault in faults_in_text(text)} == {"EI0004"}


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "a loopback address"),
        ("255.255.255.255", "an address of many hosts"),
        ("224.0.0.1", "an address of many hosts"),
        ("fe80::1", "a link-local address"),
        ("::1", "a loopback address"),
    ],
)
def test_an_address_that_no_other_host_can_reach_is_a_warning(address, kind):
    text = json.dumps(TWO_SERVERS).replace("192.168.111.2", address)
    (warning,) = judge_text(text).warnings
    assert (warning.path, warning.value) == ("$.server_list[1].device[1].device_ip", address)
    assert warning.fix.startswith(f"that is {kind}, which no other host can reach")


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
    (("version",), 1.0, "EI0017"),
    (("server_count",), "7", "EI0014"),
    (("server_count",), "-1", "EI0014"),
    (("server_list",), REMOVED, "EI0017"),
    (("server_list",), [], "EI0014"),
    (SERVER, "172.16.0.111", "EI0017"),
    ((*SERVER, "server_id"), REMOVED, "EI0017"),
    ((*SERVER, "server_id"), "", "EI0014"),
    ((*SERVER, "server_id"), "9" * 65, "EI0014"),
    ((*SERVER, "server_id"), 111, "EI0017"),
    ((*SERVER, "pod_ip"), "10.0.0.1", "MindSpore"),
    ((*SERVER, "host_ip"), "host-1", "EI0014"),
    ((*SERVER, "host_ip"), "::1", "EI0014"),
    ((*SERVER, "host_port"), "0", "EI0014"),
    ((*SERVER, "device"), REMOVED, "EI0017"),
    ((*SERVER, "device"), [], "EI0014"),
    (DEVICE, "1", "EI0017"),
    ((*DEVICE, "device_id"), REMOVED, "EI0017"),
    ((*DEVICE, "device_id"), "0", "EI0014"),
    ((*DEVICE, "device_id"), "one", "EI0014"),
    ((*DEVICE, "device_id"), "-1", "EI0014"),
    ((*DEVICE, "device_id"), 1, "EI0017"),
    ((*DEVICE, "device_ip"), REMOVED, "EI0017"),
    ((*DEVICE, "device_ip"), "", "EI0014"),
    ((*DEVICE, "device_ip"), "192.168.1", "EI0014"),
    ((*DEVICE, "device_ip"), "192.168.1.256", "EI0014"),
    ((*DEVICE, "device_ip"), "2001:db8::1", "EI0001"),
    ((*DEVICE, "device_port"), "65536", "EI0014"),
    ((*DEVICE, "backup_device_port"), 16666, "EI0017"),
    ((*DEVICE, "rank_id"), REMOVED, "EI0017"),
    ((*DEVICE, "rank_id"), "0", "EI0014"),
    ((*DEVICE, "rank_id"), "99", "EI0014"),
    ((*DEVICE, "rank_id"), 3, "EI0017"),
]
MUTATIONS_OF_PODS = [
    ((*DEVICE, "super_device_id"), REMOVED, "EI0017"),
    ((*DEVICE, "super_device_id"), "0x10", "EI0014"),
    ((*DEVICE, "super_device_id"), "48", "EI0014"),
    ((*POD, "super_pod_id"), REMOVED, "EI0017"),
    ((*POD, "super_pod_id"), "", "EI0014"),
    ((*POD, "super_pod_id"), 0, "EI0017"),
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
        "$.server_list[0].device[0].device_ip; each device needs its own address"
    )


def test_every_fault_of_a_table_is_listed_and_they_are_counted(tmp_path):
    mutant = {**copy.deepcopy(TWO_SERVERS), "status": "?", "server_count": "3"}
    del mutant["server_list"][0]["device"][0]["rank_id"]
    assert len(faults_in_table(mutant)) == 3
    path = tmp_path / "t.json"
    path.write_text(json.dumps(mutant))
    with pytest.raises(InputError, match=r"EI0014 \$.status = .*and 2 more\)"):
        read_rank_table(path)


@pytest.mark.parametrize(
    ("ids", "soc", "legal"),
    [
        ([0, 1], "910a", True),
        ([3, 4], "910a", True),
        ([0, 1, 2], "910a", False),
        ([0, 1, 2], "910b", True),
        ([0, 3, 4, 7], "910a", True),
        ([0, 1, 2, 4], "910a", False),
        ([8], "910a", False),
        ([8], "910b", True),
        (range(9), "910b", False),
        (range(16), "910b", True),
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


def test_servers_of_one_super_pod_are_listed_together():
    mutant = copy.deepcopy(TWO_PODS)
    for pod, members in zip(mutant["super_pod_list"], ([0, 2], [1]), strict=True):
        pod["server_list"] = [{"server_id": mutant["server_list"][m]["server_id"]} for m in members]
    assert [fault.fix for fault in faults_in_table(mutant)] == [
        "the servers of one super pod must be neighbours; list them one after the other"
    ]


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
@given(table=st.sampled_from([TWO_SERVERS, TWO_PODS, LAB_FORM]), data=st.data())
def test_any_value_anywhere_in_a_table_is_judged_without_a_traceback(table, data):
    mutant = copy.deepcopy(table)
    holder, key = at(mutant, data.draw(st.sampled_from(list(paths_of(table)))))
    holder[key] = data.draw(json_values)
    faults = faults_in_table(mutant, data.draw(st.sampled_from([None, "910a", "910b", "a3"])))
    assert all(str(fault) for fault in faults)
    if not faults:
        assert table_from_dict(mutant).world_size >= 1


@given(table=st.sampled_from([TWO_SERVERS, TWO_PODS]), data=st.data())
def test_a_scalar_that_is_not_a_string_is_refused_anywhere(table, data):
    mutant = copy.deepcopy(table)
    scalars = [path for path in paths_of(table) if isinstance(at(table, path)[0][path[-1]], str)]
    holder, key = at(mutant, data.draw(st.sampled_from(scalars)))
    holder[key] = data.draw(st.integers() | st.floats() | st.booleans() | st.none())
    assert faults_in_table(mutant)
