"""Small rank tables, each with the verdict of HCCL's rules: legal, warned about, or refused.

A refusal names HCCL's code and the key that breaks the rule.
"""

import copy
import json

import pytest

from orchestrator.ascend.rank_table.fault import ABSENT
from orchestrator.ascend.rank_table.rules import judge_table, judge_text
from orchestrator.ascend.rank_table.table import table_from_dict
from orchestrator.ascend.rank_table.text import table_of_text
from tests.unit import rank_table_cases, rank_table_old_cases
from tests.unit.rank_table_builders import GONE, LEGAL, WARNED, in_cloud, in_lab, one, pods
from tests.unit.rank_tables import CLOUD_FORM

CASES = rank_table_cases.CASES | rank_table_old_cases.CASES


@pytest.mark.parametrize(("table", "soc", "verdict", "key"), CASES.values(), ids=CASES)
def test_a_table_gets_the_verdict_of_hccls_rules(table, soc, verdict, key):
    # Through the text: a lone surrogate or a Python value that is no JSON would not come so far.
    judged = judge_text(json.dumps(table), soc)
    if verdict == LEGAL:
        assert judged.faults + judged.warnings == ()
    elif verdict == WARNED:
        assert judged.faults == () and key in str(judged.warnings[0])
    else:
        assert [fault.code for fault in judged.faults if key in str(fault)][:1] == [verdict]
    if not judged.faults:
        assert table_from_dict(table).world_size >= 1


def test_every_legal_case_is_still_legal_after_reading_and_writing():
    for name, (table, soc, verdict, _) in CASES.items():
        if verdict in (LEGAL, WARNED):
            written = json.dumps(table_from_dict(table).to_dict())
            assert judge_text(written, soc).faults == (), name


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "a rank table is a JSON object"),
        ('{"status": "completed"} x', "not JSON"),
        ('{"x": NaN}', "NaN is no number"),
        ('{"x": [-Infinity]}', "-Infinity is no number"),
        ('{"x": 1e999}', "too large"),
        ("[" * 100_000, "nested too deeply"),
        ('{"x": ' + "9" * 5000 + "}", "too many digits"),
        ('{"x": "\\ud800"}', "lone surrogate"),
        ('{"\\udfff": 1}', "lone surrogate"),
        ('{"status": "completed", "status": "initializing"}', "appears twice"),
        ('{"x": {"a": 1, "b": 2, "a": 1}}', "appears twice"),
        ("[" * 100_000, "not JSON"),
        ("9" * 5000, "not JSON"),
        ("'{}'", "not JSON"),
        ("\ufeff\ufeff{}", "not JSON"),
        (f'{{"{"k" * 9999}": 1, "{"k" * 9999}": 2}}', "appears twice"),
    ],
)
def test_text_that_hccl_cannot_parse_is_refused_in_one_line(text, reported):
    (fault,) = judge_text(text).faults
    assert fault.code == "EI0004"
    assert reported in str(fault)
    assert "\n" not in str(fault) and len(str(fault)) < 400


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ('// ready\n{"status": "completed"}', "remove the comments"),
        ('{"status": "completed", // ready\n "version": "1.0"}', "remove the comments"),
        ('{"status": "completed" /* ready */}', "remove the comments"),
        ('{"status": # ready\n "completed"}', "remove the comments"),
        ('{"status": "completed"}\n// end', "remove the comments"),
        ('{"status": "completed",\n}', "remove the comma before the }"),
        ('{"server_list": [{}, ]}', "remove the comma before the ]"),
        ('{"status": }', "write a new table"),
        ('{"status": "completed",', "write a new table"),
    ],
)
def test_comments_and_a_comma_too_many_are_named_with_the_remedy(text, remedy):
    (fault,) = judge_text(text).faults
    assert fault.fix.startswith("this is not JSON (") and fault.fix.endswith(f"); {remedy}")


def test_a_comment_inside_a_string_is_no_comment():
    assert judge_text(json.dumps(one(name="//a #b"))).faults == ()


TABLE = json.dumps(one())
CONFIG_MAP = {
    "kind": "ConfigMap",
    "metadata": {"name": "rings-config-job", "namespace": "vcjob"},
    "data": {"hccl.json": TABLE, "version": "2"},
}


@pytest.mark.parametrize(
    ("file", "command"),
    [
        (CONFIG_MAP, r"rings-config-job -n vcjob -o jsonpath='{.data.hccl\.json}' > hccl.json"),
        ({"kind": "List", "items": [{"kind": "ConfigMap"}, CONFIG_MAP]}, "rings-config-job -n vcjob -o"),
        (
            {"data": {"jobstart_hccl.json": TABLE}},
            r"NAME -o jsonpath='{.data.jobstart_hccl\.json}' > jobstart_hccl.json",
        ),
        ({"hccl.json": TABLE}, r"NAME -o jsonpath='{.data.hccl\.json}' > hccl.json"),
    ],
    ids=["a ConfigMap", "in a list", "its data of ModelArts", "only the data"],
)
def test_a_config_map_in_place_of_a_table_is_named_with_the_command_that_writes_the_table(file, command):
    (fault,) = judge_table(file).faults
    assert "a Kubernetes ConfigMap, and the table is the text of its key" in fault.fix
    assert f"kubectl get configmap {command}" in fault.fix


def test_a_config_map_without_a_table_is_named():
    (fault,) = judge_table({**CONFIG_MAP, "data": {"a.json": "{}"}}).faults
    assert "a Kubernetes ConfigMap without hccl.json and jobstart_hccl.json; give" in fault.fix


def test_the_global_table_of_an_inference_service_is_named():
    groups = [{"group_id": "1", "server_count": "1", "server_list": one()["server_list"]}]
    table = {"version": "1.0", "status": "completed", "server_group_list": groups}
    (fault,) = judge_table(table).faults
    assert (fault.code, fault.path) == ("EI0017", "$.server_list")
    assert (
        "the global table of an inference service" in fault.fix and "write a table of one group" in fault.fix
    )


def test_a_table_of_vllm_is_named_by_its_lists():
    devices = [{"server_id": "10.0.0.1", "device_id": "0", "device_ip": "192.168.1.1", "cluster_id": "1"}]
    table = {"version": "1.2", "status": "completed", "server_count": "1"}
    both = {"prefill_device_list": devices, "decode_device_list": devices}
    (fault,) = judge_table(table | both).faults
    assert (fault.code, fault.path) == ("EI0017", "$.server_list")
    assert "(vLLM), and the devices of prefill_device_list and decode_device_list have no ranks" in fault.fix
    (fault,) = judge_table(table | {"decode_device_list": devices}).faults
    assert "(vLLM), and the devices of decode_device_list have no ranks" in fault.fix


@pytest.mark.parametrize(
    ("text", "path", "value", "first"),
    [
        ('{"status": "a", "status": "b"}', "$.status", "b", "'a'"),
        ('{"x": [{}, {"a": 1, "a": 2}], "y": {"a": 3, "a": 4}}', "$.x[1].a", 2, "1"),
        ('{"x": {"a": 1, "a": 2}, "x": 3}', "$.x", 3, "{'a': 2}"),
        ('{"a b": 1, "a b": 2}', "$['a b']", 2, "1"),
    ],
    ids=["at the top", "inside", "in a value that is lost", "a key with a blank"],
)
def test_a_key_that_appears_twice_has_its_path_and_both_values(text, path, value, first):
    (fault,) = judge_text(text).faults
    assert (fault.path, fault.value) == (path, value)
    assert f"the key appears twice in one object, first with {first}, and HCCL takes the last" in fault.fix


def test_a_die_number_that_occurs_twice_in_a_pod_is_named_with_both_devices():
    on_one_server = copy.deepcopy(pods(("0", "a", "b")))
    (first,) = on_one_server["server_list"][0]["device"]
    on_one_server["server_list"][0]["device"].append({**first, "device_id": "1", "device_ip": "10.9.9.9"})
    for table, path in (
        (pods(("0", "a", "b"), dies=("16", "16")), "$.server_list[1].device[0]"),
        (on_one_server, "$.server_list[0].device[1]"),
    ):
        (fault,) = [fault for fault in judge_table(table, "a3").faults if "die" in fault.fix]
        assert (fault.path, fault.value) == (f"{path}.super_device_id", "16")
        assert fault.fix == (
            "also at $.server_list[0].device[0].super_device_id; number each die of a super pod once"
        )


def test_a_byte_order_mark_and_a_pair_of_surrogates_are_legal():
    text = "\ufeff" + json.dumps(one(name="\U0001f680"))
    assert judge_text(text).faults == ()
    assert table_from_dict(table_of_text(text)).servers[0].server_id == "\U0001f680"


def test_the_cloud_form_is_numbered_by_server_and_device_whatever_its_order():
    table = table_from_dict(CLOUD_FORM).to_dict()
    assert [
        (server["server_id"], [(entry["device_id"], entry["rank_id"]) for entry in server["device"]])
        for server in table["server_list"]
    ] == [("192.168.0.25", [("6", "0")]), ("192.168.0.27", [("4", "1"), ("5", "2")])]


def test_a_fault_in_the_old_form_names_the_path_in_the_file():
    broken = in_cloud("instance_list/0/devices/1/device_id", "four")
    assert [fault.path for fault in judge_table(broken).faults] == [
        "$.group_list[0].instance_list[0].devices[1].device_id"
    ]
    lab = in_lab("instance_list/1/rank_id", "7")
    assert [fault.path for fault in judge_table(lab).faults] == ["$.group_list[0].instance_list[1].rank_id"]


@pytest.mark.parametrize(
    "table", [in_lab("instance_list/0/rank_id", GONE), in_cloud("instance_list/0/server_id", GONE)]
)
def test_a_missing_key_of_the_old_form_is_shown_as_missing(table):
    assert [fault.value for fault in judge_table(table).faults] == [ABSENT]


def test_there_are_at_least_120_cases():
    assert len(CASES) >= 120
