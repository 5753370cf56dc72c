"""`rank-table` as users call it: what is printed, written, and the exit code."""

import json

import pytest

from orchestrator.ascend.inventory.host_tools import ROOT_VARIABLE
from orchestrator.errors import InputError
from sdnet import errors as sdnet_errors
from tests.ascend_fakes.host import describe, install
from tests.unit import rank_table_cases
from tests.unit.rank_table_command import run, this_host

JOB = """
name: two
cluster:
  device: ascend
  soc: 910a
  workers: 4
  hosts:
    - {address: 172.16.0.2, devices: {0: 192.168.2.1, 1: 192.168.2.2}}
    - {address: 172.16.0.1, devices: {0: 192.168.1.1, 1: 192.168.1.2}}
"""


@pytest.fixture
def job(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(JOB)
    return path


def test_a_table_is_built_from_the_hosts_of_a_job_and_found_legal(job, tmp_path):
    out = tmp_path / "hccl.json"
    assert run("build", job, "--out", out).output == f"wrote {out}: 4 ranks on 2 server(s)\n"
    assert [server["server_id"] for server in json.loads(out.read_text())["server_list"]] == [
        "172.16.0.1", "172.16.0.2",
    ]  # fmt: skip
    reported = run("validate", out, "--soc", "910a")
    assert (reported.exit_code, reported.output) == (0, f"{out}: legal on 910a\n")


def test_a_table_of_this_host_comes_with_a_warning_for_each_device_that_is_left_out(tmp_path, monkeypatch):
    host = describe(1, devices=range(4))
    host["devices"][2] |= {"health": "OFFLINE"}
    host["devices"][3] |= {"processes": [[77, "python", 10]]}
    monkeypatch.setenv(ROOT_VARIABLE, str(install(tmp_path, host)))
    built = run("build", "--address", "a")
    assert len(json.loads(built.stdout)["server_list"][0]["device"]) == 2
    assert built.stderr.splitlines() == [
        "rank table: warning: a: NPU 2 is left out (health OFFLINE)",
        "rank table: warning: a: NPU 3 is left out (busy: process 77 python)",
    ]


def test_a_table_without_addresses_comes_with_a_warning_that_names_the_tool(tmp_path, monkeypatch):
    monkeypatch.setenv(ROOT_VARIABLE, str(install(tmp_path, describe(1, devices=[0]), tools=["npu-smi"])))
    built = run("build")
    assert built.exit_code == 0 and "device_ip" not in built.stdout
    assert "rank table: warning: 127.0.0.1: NPU 0 has no address; tried: `hccn_tool -i 0" in built.stderr


def test_tables_that_hosts_wrote_of_themselves_merge_into_one(tmp_path, monkeypatch):
    for number in (1, 2):
        this_host(tmp_path, monkeypatch, number, devices=[0, 1])
        run("build", "--address", f"172.16.0.{number}", "--out", tmp_path / f"{number}.json")
    run("merge", tmp_path / "1.json", tmp_path / "2.json", "--out", tmp_path / "both.json")
    servers = json.loads((tmp_path / "both.json").read_text())["server_list"]
    assert [(s["server_id"], [d["rank_id"] for d in s["device"]]) for s in servers] == [
        ("172.16.0.1", ["0", "1"]), ("172.16.0.2", ["2", "3"]),
    ]  # fmt: skip


def test_the_number_of_ranks_may_be_less_than_the_host_has(tmp_path, monkeypatch):
    this_host(tmp_path, monkeypatch)
    assert len(json.loads(run("build", "--workers", 2).output)["server_list"][0]["device"]) == 2


def test_a_table_of_one_host_needs_no_network_cables(tmp_path, monkeypatch):
    host = describe(1, soc="910a", devices=[0, 1])
    for device in host["devices"]:
        device |= {"health": "Alarm", "codes": ["81078603"], "link": "DOWN", "ip": None}
    monkeypatch.setenv(ROOT_VARIABLE, str(install(tmp_path / "host", host)))
    (server,) = json.loads(run("build", "--soc", "910a").stdout)["server_list"]
    assert server["device"] == [{"device_id": "0", "rank_id": "0"}, {"device_id": "1", "rank_id": "1"}]


def test_the_chip_is_that_of_the_host_and_no_other_can_be_stated(tmp_path, monkeypatch):
    this_host(tmp_path, monkeypatch, soc="910a")
    with pytest.raises(InputError, match=r"--soc is 910b, but this host has 910A, a 910a; leave --soc out"):
        run("build", "--soc", "910b")
    # Legal on 910B, but 910A takes 1, 2, 4 or 8 devices.
    with pytest.raises(InputError, match="3 ranks do not fit 8 usable NPUs"):
        run("build", "--workers", 3)


@pytest.mark.parametrize("model", ["NA", "910D"])
def test_a_model_of_no_known_family_comes_with_a_warning_unless_the_chip_is_stated(
    tmp_path, monkeypatch, model
):
    host = describe(1, devices=[0])
    host["devices"][0]["model"] = model
    monkeypatch.setenv(ROOT_VARIABLE, str(install(tmp_path / "host", host)))
    assert run("build").stderr == (
        f"rank table: warning: the model {model} names no single chip family, so this is a table of a 910b; "
        "give --soc\n"
    )
    assert run("build", "--soc", "910b").stderr == ""


def test_a_host_without_a_usable_device_says_why_each_is_left_out(tmp_path, monkeypatch):
    host = describe(1, devices=[6])
    host["devices"][0]["model"] = "310P3"
    monkeypatch.setenv(ROOT_VARIABLE, str(install(tmp_path / "host", host)))
    with pytest.raises(InputError, match=r"left out: 127\.0\.0\.1 NPU 6 \(310P3 is no 910A, 910B or A3\)"):
        run("build")


def test_only_the_named_devices_of_the_host_are_taken(tmp_path, monkeypatch):
    this_host(tmp_path, monkeypatch)
    (server,) = json.loads(run("build", "--devices", "4-5,7").output)["server_list"]
    assert [device["device_id"] for device in server["device"]] == ["4", "5", "7"]
    with pytest.raises(InputError, match=r"--devices 7-8: this host has \[0, .* 7\]"):
        run("build", "--devices", "7-8")


@pytest.mark.parametrize(
    ("visible", "which"),
    [
        ("1,0", "for its devices alone, add --devices 4,5 (physical ids)"),
        ("4,5", "choose devices with --devices"),  # CANN counts from 0 in this container
        ("0-1", "choose devices with --devices"),
        ("0,0,1", "choose devices with --devices"),
        ("", "choose devices with --devices"),
        ("0,1,2", None),
    ],
)
def test_the_variable_that_hides_devices_from_cann_is_not_used_and_a_note_says_so(
    tmp_path, monkeypatch, visible, which
):
    this_host(tmp_path, monkeypatch, devices=[4, 5, 7])
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", visible)
    built = run("build")
    assert len(json.loads(built.stdout)["server_list"][0]["device"]) == 3
    note = f"rank table: note: ASCEND_RT_VISIBLE_DEVICES is {visible!r}, and is not used here; {which}\n"
    assert built.stderr == (note if which else "")
    assert run("build", "--devices", "4").stderr == ""


@pytest.mark.parametrize("asked", [["--workers", 3], ["--devices", "0-2"]])
def test_a_group_that_does_not_fit_this_host_names_the_option_and_no_key_of_a_job(
    tmp_path, monkeypatch, asked
):
    this_host(tmp_path, monkeypatch, soc="910a", devices=[0, 1, 2])
    with pytest.raises(InputError, match="; set --workers to 2, the largest group that fits"):
        run("build", *asked)


@pytest.mark.parametrize(
    ("asked", "setting"), [([], "cluster.workers"), (["--workers", 3], "--workers")], ids=["job", "option"]
)
def test_a_group_that_does_not_fit_a_job_names_where_its_size_is_stated(job, asked, setting):
    job.write_text(JOB.replace("workers: 4", "workers: 3"))
    with pytest.raises(InputError, match=f"; set {setting} to 2, the largest group that fits"):
        run("build", job, *asked)


@pytest.mark.parametrize(
    ("devices", "reported"),
    [
        ("0,1,x", "'x' is no number and no range"),
        ("", "'' is no number and no range"),
        ("0,,1", "'' is no number and no range"),
        ("0,1,", "'' is no number and no range"),
        ("０", "'０' is no number and no range"),
        ("[0,4)", "'[0' is no number and no range"),
        ("-1", "'-1' is no number and no range"),
        ("0-1-2", "'0-1-2' is no number and no range"),
        ("1.0", "'1.0' is no number and no range"),
        ("0 1", "'0 1' is no number and no range"),
        ("3-1", "'3-1' is no range from a lower to a higher number"),
        ("0-99999", "'0-99999' is no range from a lower to a higher number"),
        ("0,0", "it contains 0 twice"),
        ("0-3,2", "it contains 2 twice"),
    ],
)
def test_a_list_of_devices_is_taken_whole_or_not_at_all(tmp_path, monkeypatch, devices, reported):
    this_host(tmp_path, monkeypatch)
    with pytest.raises(InputError) as refusal:
        run("build", f"--devices={devices}")
    assert str(refusal.value) == f"--devices {devices!r}: {reported}; write device ids as in 0-3,6"


def test_blanks_around_the_numbers_of_a_list_are_legal(tmp_path, monkeypatch):
    this_host(tmp_path, monkeypatch)
    (server,) = json.loads(run("build", "--devices", " 0 - 1 , 3").output)["server_list"]
    assert [device["device_id"] for device in server["device"]] == ["0", "1", "3"]


def test_the_result_never_replaces_a_file_that_was_read(tmp_path, job):
    table, job_as_json = tmp_path / "table.json", job.rename(tmp_path / "job.json")
    run("build", job_as_json, "--out", table)
    for command, path in (("merge", table), ("build", job_as_json)):
        before = path.read_bytes()
        with pytest.raises(
            sdnet_errors.InputError, match=rf"{path.name} is an input, and the result would replace it"
        ):
            run(command, path, "--out", path)
        assert path.read_bytes() == before


def test_a_table_that_is_not_ready_is_neither_legal_nor_merged(tmp_path):
    path = tmp_path / "jobstart_hccl.json"
    path.write_text(json.dumps({"status": "initializing"}))
    reported = run("validate", path)
    assert (reported.exit_code, reported.output.count("\n")) == (2, 1)
    assert "the table is not ready" in reported.output
    with pytest.raises(InputError, match="the table is not ready"):
        run("merge", path, path, "--out", tmp_path / "both.json")
    assert not (tmp_path / "both.json").exists()


def test_a_warning_is_printed_and_does_not_change_the_exit_code(tmp_path):
    path = tmp_path / "t.json"
    path.write_text(json.dumps(rank_table_cases.CASES["ranks against the device ids"][0]))
    reported = run("validate", path)
    assert reported.exit_code == 0
    assert reported.output.splitlines() == [
        f"{path}: warning: EI0014 $.server_list[0].device[*].rank_id = [1, 0]: ranks do not ascend with the "
        "device ids; older CANN numbers a server by device id",
        f"{path}: legal",
    ]
    as_json = json.loads(run("validate", path, "--json").output)
    assert (as_json["legal"], as_json["faults"], len(as_json["warnings"])) == (True, [], 1)
    said = run("merge", path).stderr
    assert "warning: EI0014" in said and f"; server_list[0] is from {path}" in said


def test_an_illegal_table_ends_with_two_and_every_fault(job, tmp_path):
    out = tmp_path / "hccl.json"
    run("build", job, "--out", out)
    table = json.loads(out.read_text())
    table["status"] = "?"
    del table["server_list"][1]["device"][1]
    out.write_text(json.dumps(table))
    reported = run("validate", out, "--soc", "910a")
    assert reported.exit_code == 2
    assert reported.output.splitlines() == [
        f"{out}: EI0014 $.status = '?': the table is not ready: wait until its writer has set \"completed\"; "
        "HCCL reads the file again each second for 30 minutes, then fails with EI0004",
        f"{out}: EI0014 $.server_list[1].device = [0]: 910A takes the same number of devices on each server; "
        "the first has 2",
    ]
    assert run("validate", out).output.count("\n") == 1
    as_json = json.loads(run("validate", out, "--json").output)
    assert (as_json["legal"], as_json["faults"][0]["code"]) == (False, "EI0014")


def test_wrong_input_is_reported_in_one_line(job, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="--out .*t.txt does not end in .json"):
        run("build", job, "--out", tmp_path / "t.txt")
    with pytest.raises(InputError, match=r"EI0004.*cannot be read"):
        run("validate", tmp_path / "none.json")
    with pytest.raises(InputError, match="--devices 0 is for this host alone"):
        run("build", job, "--devices", "0")
    with pytest.raises(
        InputError, match=r"--address 9\.9\.9\.9 is for this host alone; .* names its addresses in"
    ):
        run("build", job, "--address", "9.9.9.9")
    with pytest.raises(
        ValueError, match=r"none/t\.json cannot be written .*; name a file in a folder that is there"
    ):
        run("build", job, "--out", tmp_path / "none" / "t.json")
    assert not (tmp_path / "none").exists()
    job.write_text("name: two\n")
    with pytest.raises(InputError, match="names no cluster.hosts"):
        run("build", job)
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    with pytest.raises(InputError, match="shows no Ascend device: 127.0.0.1: `npu-smi info` failed"):
        run("build")


def test_a_relative_path_in_a_deleted_directory_is_reported_in_one_line(job, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for arguments in (("validate", "t.json"), ("build", job, "--out", "t.json")):
        with pytest.raises(InputError, match="the rank table is t.json; the current directory was deleted"):
            run(*arguments)
