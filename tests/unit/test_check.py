"""The judgement of `check`: from the facts of the hosts to findings with a remedy."""

import dataclasses

import pytest

from orchestrator.ascend.inventory.device_report import DeviceReport, HostInventory
from orchestrator.ascend.inventory.fault_codes import faults_of
from orchestrator.ascend.inventory.host_tools import ROOT_VARIABLE
from orchestrator.check.facts import HostFacts, StorageFacts
from orchestrator.check.judge import Needs, judge_capacity, judge_group, judge_host
from orchestrator.check.ping import neighbours, ping_from_host
from orchestrator.engine.host.every_host import Answer
from orchestrator.engine.host.left_over import LeftOver
from orchestrator.job.spec.job_spec import ClusterSpec
from tests.ascend_fakes.host import describe, install

GIB = 2**30
NEEDS = Needs(disk=GIB, memory_per_rank=GIB)
VERSIONS: dict[str, str | None] = {
    "python": "3.11.7",
    "sdnet-orchestrator": "0.1.0",
    "mindspore": "2.10.0",
    "ray": "2.60.0",
}
WELL = HostFacts(
    versions=VERSIONS,
    clock=(1000.1, 1000.9),
    inventory=None,
    busy_ports={},
    left_over=(),
    cleaned=False,
    storage=StorageFacts(write_mb_s=300, read_mb_s=900, free_bytes=50 * GIB),
    temporary_free=50 * GIB,
    shared_memory_total=8 * GIB,
    shared_memory_free=8 * GIB,
    memory_total=64 * GIB,
    stale_cann=(),
    data_present=True,
)


def findings(cluster=None, several=False, reference=WELL, **change):
    answer = Answer("10.0.0.1", dataclasses.replace(WELL, **change), "", 1000.0, 1001.0)
    reported = judge_host(answer, reference, cluster or ClusterSpec(), NEEDS, several)
    return {finding.check: finding for finding in reported}


def inventory(*devices, problems=()):
    return HostInventory(
        address="10.0.0.1", devices=devices, numa_cpus={0: (0,)}, memory_bytes=GIB, problems=problems
    )


def device(device_id=0, **change):
    well = {"model": "910B4", "address": f"192.168.1.{device_id}", "link": "UP", "net_health": "Success"}
    return DeviceReport(device_id=device_id, **{**well, **change})


def test_a_healthy_host_has_every_row_and_no_remedy():
    reported = findings()
    assert list(reported) == [
        "versions", "clock", "storage", "disk", "shared memory", "memory", "data", "left-over processes",
    ]  # fmt: skip
    assert {(finding.state, finding.remedy) for finding in reported.values()} == {("ok", "")}


@pytest.mark.parametrize(
    ("change", "check", "state", "reported"),
    [
        ({"versions": {**VERSIONS, "mindspore": None}}, "versions", "fail", "install mindspore"),
        ({"versions": {**VERSIONS, "cann": None}}, "versions", "fail", "looked in $ASCEND_HOME_PATH, "),
        ({"versions": {**VERSIONS, "ray": "2.50.0"}}, "versions", "fail", "first host has ray 2.60.0"),
        ({"versions": {**VERSIONS, "driver": "23"}}, "versions", "warn", "first host has driver None"),
        ({"stale_cann": ("$ASCEND_HOME_PATH=/x",)}, "versions", "warn", "$ASCEND_HOME_PATH=/x; s"),
        ({"clock": (1003.1, 1003.9)}, "clock", "warn", "chrony"),
        ({"clock": (900.1, 900.9)}, "clock", "fail", "chrony"),
        ({"storage": StorageFacts(error="No such file")}, "storage", "fail", "mount the same directory"),
        ({"storage": StorageFacts(write_mb_s=9, read_mb_s=99)}, "storage", "warn", "faster storage"),
        ({"storage": StorageFacts(free_bytes=5)}, "disk", "fail", "another `storage`"),
        ({"shared_memory_free": 64 * 2**20}, "shared memory", "warn", "--shm-size"),
        ({"memory_total": GIB // 2}, "memory", "warn", "lower workers_per_host"),
        ({"data_present": False}, "data", "fail", "mount data.images"),
        ({"left_over": (LeftOver(7, "python", "/runs/x"),)}, "left-over processes", "fail", "check --clean"),
    ],
)
def test_a_problem_is_reported_with_its_remedy(change, check, state, reported):
    finding = findings(**change)[check]
    assert finding.state == state
    assert reported in finding.remedy


def test_a_clock_difference_below_the_travel_time_is_accepted():
    answer = Answer("10.0.0.1", dataclasses.replace(WELL, clock=(1003.0, 1003.1)), "", 1000.0, 1006.0)
    reported = {f.check: f for f in judge_host(answer, WELL, ClusterSpec(), NEEDS, several=False)}
    assert reported["clock"].state == "ok"


def test_ended_leftovers_are_reported_and_are_no_problem():
    finding = findings(left_over=(LeftOver(7, "python", "/runs/x"),), cleaned=True)["left-over processes"]
    assert (finding.state, finding.seen) == ("ok", "ended 7 python of /runs/x")


def test_a_host_that_does_not_answer_is_one_finding():
    answer: Answer[HostFacts] = Answer("10.0.0.1", None, "no answer within 180 s", 0.0, 180.0)
    (finding,) = judge_host(answer, WELL, ClusterSpec(), NEEDS, several=True)
    assert (finding.check, finding.state, finding.seen) == ("answer", "fail", "no answer within 180 s")


def test_one_host_without_cables_or_addresses_is_accepted_and_several_are_not():
    bare = inventory(
        device(0, link="DOWN", address=None, health="Alarm", faults=faults_of(["81078603"])),
        device(4, logical_id=1, link=None, address=None, net_health="Init"),
    )
    alone = findings(ClusterSpec(device="ascend"), several=False, inventory=bare)
    assert (alone["devices"].state, alone["devices"].seen) == ("ok", "2 of 2 well: 2 x 910B4")
    assert (alone["links"].state, alone["links"].remedy) == ("ok", "")
    among = findings(ClusterSpec(device="ascend"), several=True, inventory=bare)
    assert among["NPU 0"].state == "fail" and "network port down" in among["NPU 0"].remedy
    assert among["links"].state == "warn"
    assert among["NPU 4"].seen.startswith("1 for CANN and Ray, 910B4, OK")
    assert "HCCL needs its address" in among["NPU 4"].remedy


def test_an_unknown_model_is_doubtful_and_one_of_another_family_is_no_device():
    reported = findings(
        ClusterSpec(device="ascend"),
        inventory=inventory(device(0), device(1, model="910D"), device(2, model="310P3")),
    )
    assert (reported["NPU 1"].state, "is not known" in reported["NPU 1"].remedy) == ("warn", True)
    assert (reported["NPU 2"].state, reported["NPU 2"].remedy) == ("fail", "310P3 is no 910A, 910B or A3")


def test_devices_are_counted_and_only_the_doubtful_ones_get_a_row():
    reported = findings(
        ClusterSpec(device="ascend"),
        several=True,
        inventory=inventory(
            device(0),
            device(1, health="Warning", faults=faults_of(["80E01801"])),
            device(2, health="Alarm", faults=faults_of(["40F84E00"])),
            device(3, link="DOWN"),
            device(4, address=None),
            device(5, model="910A"),
            problems=("10.0.0.1: `hccn_tool` failed",),
        ),
        busy_ports={60001: "LISTEN", 60002: "ESTABLISHED"},
    )
    assert reported["devices"].seen == "1 of 6 well: 5 x 910B4, 1 x 910A"
    assert (reported["links"].state, reported["links"].seen) == ("warn", "1 DOWN, 5 UP")
    assert (reported["NPU 1"].state, reported["NPU 1"].remedy) == ("warn", "run the job again")
    assert "40F84E00 card dropped off the bus (RESTART_NPU)" in reported["NPU 2"].seen
    assert reported["NPU 2"].remedy.endswith("reset the chip: npu-smi set -t reset")
    assert reported["NPU 3"].remedy == "network link DOWN"
    assert "HCCL needs its address" in reported["NPU 4"].remedy
    assert reported["NPU 5"].remedy == "this is a 910a; set cluster.soc to it"
    assert "NPU 0" not in reported
    assert reported["tools"].seen == "`hccn_tool` failed"
    assert (reported["ports"].state, reported["ports"].seen) == (
        "fail",
        "taken: 60001 LISTEN, 60002 ESTABLISHED",
    )


def test_ports_that_passing_connections_took_are_to_be_reserved():
    reported = findings(inventory=inventory(device()), busy_ports={60006: "TIME_WAIT"})["ports"]
    assert (reported.state, reported.remedy) == (
        "warn",
        "sysctl net.ipv4.ip_local_reserved_ports=60000-60015",
    )


def test_a_host_without_devices_fails():
    assert findings(ClusterSpec(device="ascend"), inventory=inventory())["devices"].state == "fail"


def test_the_group_is_tried_on_what_is_usable():
    cluster = ClusterSpec(device="ascend", workers=2)
    assert judge_group([inventory(device(0), device(1))], cluster).seen == "2 ranks on 1 host(s)"
    refused = judge_group([inventory(device(0), device(1, health="Critical"))], cluster)
    assert (refused.state, refused.remedy) == (
        "fail", "set cluster.workers to 1, the largest group that fits",
    )  # fmt: skip


def test_an_elastic_job_starts_smaller_and_says_so():
    cluster = ClusterSpec(device="ascend", workers=(1, 4))
    reported = judge_group([inventory(device(0), device(1))], cluster)
    assert (reported.state, reported.seen, reported.remedy) == (
        "warn", "2 ranks on 1 host(s)", "the job could take 4",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("resources", "cluster", "state"),
    [
        ({"a": {"CPU": 2.0}, "b": {"CPU": 2.0}}, ClusterSpec(workers=4), "ok"),
        ({"a": {"CPU": 3.0}, "b": {"CPU": 2.0}}, ClusterSpec(workers=4, workers_per_host=1), "fail"),
        ({"a": {"CPU": 64.0}}, ClusterSpec(device="ascend", workers=1), "fail"),
        ({"a": {"NPU": 8.0}}, ClusterSpec(device="ascend", workers=(4, 16)), "ok"),
    ],
)
def test_ray_must_count_enough_for_the_job(resources, cluster, state):
    assert judge_capacity(resources, cluster).state == state


def test_each_device_pings_the_one_at_its_place_on_the_next_host(tmp_path, monkeypatch):
    hosts = [
        HostInventory(
            address=f"10.0.0.{n}", numa_cpus={0: (0,)}, memory_bytes=GIB,
            devices=(DeviceReport(device_id=n, model="910B4", address=f"192.168.{n}.1"),),
        )
        for n in (1, 2, 3)
    ]  # fmt: skip
    targets = neighbours(hosts)
    assert targets == {
        "10.0.0.1": {1: "192.168.2.1"}, "10.0.0.2": {2: "192.168.3.1"}, "10.0.0.3": {3: "192.168.1.1"},
    }  # fmt: skip
    assert neighbours(hosts[:1]) == {}
    described = describe(1, devices=[1]) | {"reachable": ["192.168.2.1"]}
    monkeypatch.setenv(ROOT_VARIABLE, str(install(tmp_path, described)))
    assert ping_from_host("10.0.0.1", targets) == {1: 0.0}
    assert ping_from_host("10.0.0.1", {"10.0.0.1": {1: "192.168.9.9"}}) == {1: 100.0}
    assert "exit code 1" in str(ping_from_host("10.0.0.1", {"10.0.0.1": {7: "192.168.9.9"}})[7])
