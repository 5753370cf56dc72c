"""The inventory reads a host through its tools; what they lack is reported with every source tried."""

import pytest

from orchestrator.ascend.inventory.device_ids import with_both_ids
from orchestrator.ascend.inventory.device_report import DeviceReport, soc_of
from orchestrator.ascend.inventory.fault_codes import FaultLevel, faults_of
from orchestrator.ascend.inventory.host_inventory import take_inventory
from orchestrator.ascend.inventory.host_tools import ROOT_VARIABLE, AscendHostTools
from orchestrator.ascend.inventory.id_lists import ids_in_list
from orchestrator.ascend.inventory.npu_smi import ChipIds
from orchestrator.ascend.inventory.npu_smi_table import DeviceProcess, parse_info
from orchestrator.ascend.placement import place
from orchestrator.ascend.rank_table.table import build_rank_table
from tests.ascend_fakes import tools
from tests.ascend_fakes.host import change, describe, install
from tests.ascend_fakes.recorded import recorded


def asked(root, stated=None):
    return take_inventory("10.0.0.1", stated, AscendHostTools(root))


def test_a_healthy_host_is_read_completely(tmp_path):
    reported = asked(install(tmp_path, describe(5, devices=[0, 4])))
    assert reported.problems == ()
    assert reported.devices[1] == DeviceReport(
        device_id=4, logical_id=1, model="910B4", hbm_used_mb=3004, hbm_total_mb=32768, numa_node=1,
        address="192.168.5.5", address_source="hccn_tool", link="UP", net_health="Success",
    )  # fmt: skip
    assert reported.npu_smi_version == "23.0.3"
    assert reported.memory_bytes > 0
    assert sum(map(len, reported.numa_cpus.values())) >= 1


def test_the_root_of_the_fakes_comes_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv(ROOT_VARIABLE, str(install(tmp_path, describe(1, devices=[0]))))
    assert [device.device_id for device in take_inventory("10.0.0.1").devices] == [0]


def test_an_a3_host_in_a_super_pod_becomes_a_table_of_version_1_2(tmp_path):
    reported = asked(install(tmp_path, describe(1, soc="a3", devices=[0, 1], pod="3")))
    table = build_rank_table(place([reported.host(needs_network=False)], 2, "a3"), "a3").to_dict()
    assert table["super_pod_list"] == [{"super_pod_id": "3", "server_list": [{"server_id": "3/10.0.0.1"}]}]
    assert [d["super_device_id"] for d in table["server_list"][0]["device"]] == ["16", "17"]


def test_an_a3_host_outside_a_super_pod_is_a_plain_server(tmp_path):
    reported = asked(install(tmp_path, describe(1, soc="a3", devices=[0, 1])))
    table = build_rank_table(place([reported.host(needs_network=False)], 2, "a3"), "a3")
    assert (table.version, reported.problems) == ("1.0", ())


def test_an_ipv6_address_is_requested_when_there_is_no_ipv4(tmp_path):
    host = describe(1, devices=[0])
    host["devices"][0] |= {"ip": None, "ipv6": "2001:db8::1"}
    assert asked(install(tmp_path, host)).devices[0].address == "2001:db8::1"


def test_hccn_conf_replaces_a_missing_hccn_tool(tmp_path):
    root = install(tmp_path, describe(1, devices=[0]), tools=["npu-smi"], conf="address_0=29.1.1.1\n")
    device = asked(root, {0: "1.1.1.1"}).devices[0]
    assert (device.address, device.address_source) == ("29.1.1.1", str(tmp_path / "etc/hccn.conf"))
    assert (device.link, device.net_health) == (None, None)


def test_the_job_replaces_a_missing_conf_and_hccn_tool(tmp_path):
    root = install(tmp_path, describe(1, devices=[0]), tools=["npu-smi"])
    device = asked(root, {0: "1.1.1.1"}).devices[0]
    assert (device.address, device.address_source) == ("1.1.1.1", "hosts of the job")


def test_a_device_without_an_address_names_every_source_that_was_tried(tmp_path):
    root = install(tmp_path, describe(1, devices=[0]), tools=["npu-smi"], conf="address_7=29.1.1.1\n")
    reported = asked(root)
    assert reported.devices[0].address is None
    (problem,) = [problem for problem in reported.problems if "no address" in problem]
    assert problem.startswith("10.0.0.1: NPU 0 has no address; tried: `hccn_tool -i 0 -ip -g` failed: not on")
    assert problem.endswith("etc/hccn.conf has none; `hosts` of the job gives none")


def test_a_host_without_npu_smi_has_no_device_to_place_on_and_says_which_it_saw(tmp_path):
    reported = asked(install(tmp_path, describe(1, devices=[0, 1]), tools=["hccn_tool"]))
    assert reported.devices == ()
    assert "`npu-smi info` failed: not on PATH" in reported.problems[0]
    assert reported.problems[1:] == (
        "10.0.0.1: /dev/davinci0 is there, but npu-smi says nothing about it",
        "10.0.0.1: /dev/davinci1 is there, but npu-smi says nothing about it",
    )


def test_garbled_output_is_a_problem_and_no_traceback(tmp_path):
    reported = asked(install(tmp_path, {**describe(1), "garbled_info": "| NPU  Na"}))
    assert reported.devices == ()
    assert "cannot be read (no table of devices in it; it printed '| NPU Na')" in reported.problems[0]


def test_a_card_that_dropped_off_the_bus_is_noticed(tmp_path):
    host = describe(1, devices=[0, 1])
    root = install(tmp_path, host)
    change(root, {**host, "devices": host["devices"][:1]})
    assert asked(root).problems == ("10.0.0.1: /dev/davinci1 is there, but npu-smi does not list it",)


def test_an_npu_that_this_container_cannot_open_is_reported(tmp_path):
    root = install(tmp_path, describe(1, devices=[0, 1, 2]))
    for device in (0, 2):
        (root / f"dev/davinci{device}").unlink()
    assert asked(root).problems == tuple(
        f"10.0.0.1: npu-smi lists NPU {device}, but /dev/davinci{device} is not there; give it to the container, "
        "or choose other devices"
        for device in (0, 2)
    )
    assert asked(root).only([1]).problems == () and len(asked(root).only([0, 1]).problems) == 1


def test_a_host_of_virtual_devices_has_no_node_to_miss(tmp_path):
    root = install(tmp_path, describe(1, devices=[0, 1]))
    for device in (0, 1):
        (root / f"dev/davinci{device}").rename(root / f"dev/vdavinci{100 + device}")
    assert asked(root).problems == ()


def test_npus_that_only_the_other_lists_of_npu_smi_know_are_noticed(tmp_path):
    host = describe(1, devices=[0, 1])
    table = tools.info({**host, "devices": host["devices"][:1]})
    root = install(tmp_path, {**host, "garbled_info": table})
    assert [problem for problem in asked(root).problems if "davinci" not in problem] == [
        "10.0.0.1: `npu-smi info -l` counts {0: 1, 1: 1} chips by NPU, its table {0: 1}",
        "10.0.0.1: `npu-smi info -m` knows chip 0 of NPU 1, its table does not",
    ]


def test_unhealthy_and_busy_devices_are_left_out_with_the_reason(tmp_path):
    host = describe(1, devices=range(6))
    host["devices"][0] |= {"health": "Alarm", "codes": ["40F84E00"]}
    host["devices"][1] |= {"health": "Warning", "codes": ["80E01801"]}
    host["devices"][2] |= {"health": "Critical"}
    host["devices"][3]["processes"] = [[6513, "python", 617]]
    host["devices"][4]["link"] = "DOWN"
    host["devices"][5]["net_health"] = "Socket fail"
    reported = asked(install(tmp_path, host))
    assert [npu.unusable for npu in reported.host(needs_network=True).npus] == [
        "health Alarm, 40F84E00 card dropped off the bus",
        "",
        "health Critical",
        "busy: process 6513 python",
        "network link DOWN",
        "network health: Socket fail",
    ]
    assert reported.host(needs_network=False, ours=frozenset({6513})).usable == (1, 3, 4, 5)


def test_a_device_with_unknown_holders_counts_as_free():
    assert DeviceReport(device_id=0, model="910A", processes=None).unusable(needs_network=True) == ""


def test_a_holder_without_a_name_is_reported_by_its_id():
    holder = DeviceProcess(device_id=0, pid=9, name="", memory_mb=1)
    report = DeviceReport(device_id=0, model="910B4", processes=(holder,))
    assert report.unusable(needs_network=False) == "busy: process 9"


def test_the_worst_code_comes_first_and_an_unknown_one_counts_as_worst():
    assert [(fault.code, fault.level) for fault in faults_of(["80e01801", "8C03A000", "DEADBEEF"])] == [
        ("DEADBEEF", FaultLevel.SEPARATE_NPU),
        ("8C03A000", FaultLevel.RESTART_NPU),
        ("80E01801", FaultLevel.RESTART_BUSINESS),
    ]


def test_a_container_counts_the_devices_that_it_sees_from_zero(tmp_path):
    reported = asked(install(tmp_path, describe(1, devices=[4, 5, 6, 7])))
    assert [(device.device_id, device.logical_id) for device in reported.devices] == [
        (4, 0), (5, 1), (6, 2), (7, 3),
    ]  # fmt: skip
    assert [reported.physical_id(number) for number in (0, 3, 4)] == [4, 7, None]
    assert [npu.number_in_cann for npu in reported.host(needs_network=False).npus] == [0, 1, 2, 3]


@pytest.mark.parametrize("soc", ["910b", "a3"])
def test_noise_around_the_tables_and_a_fifth_column_lose_no_device(tmp_path, soc):
    host = describe(1, soc=soc, devices=[2, 3]) | {"noise": True, "version": "26.1.0"}
    host["devices"][0]["processes"] = [[6513, "python", 617]]
    reported = asked(install(tmp_path, host))
    assert [device.device_id for device in reported.devices] == [2, 3]
    assert reported.devices[0].unusable(needs_network=False) == "busy: process 6513 python"
    assert reported.problems == ()


def test_without_a_mapping_the_devices_are_counted_by_their_physical_ids():
    info = parse_info(tools.info(describe(1, devices=[7, 4, 6])))
    reported = with_both_ids(info, None)
    assert [(device.device_id, device.logical_id) for device in reported.devices] == [(7, 2), (4, 0), (6, 1)]


def test_the_column_device_of_older_tables_is_the_logical_id():
    (device,) = with_both_ids(parse_info(recorded("310p_25")), None).devices
    assert (device.device_id, device.logical_id) == (6, 0)


def test_the_mapping_corrects_physical_ids_that_the_table_does_not_state():
    host = describe(1, devices=[0, 1])
    host["devices"][0]["processes"] = [[6513, "python", 617]]
    mapped = {(0, 0): ChipIds(0, 8), (1, 0): ChipIds(1, 9)}
    reported = with_both_ids(parse_info(tools.info(host)), mapped)
    assert [(device.device_id, device.logical_id) for device in reported.devices] == [(8, 0), (9, 1)]
    assert [process.device_id for process in reported.processes or ()] == [8]


@pytest.mark.parametrize(
    "mapped",
    [{(0, 0): ChipIds(1, 8)}, {(0, 0): ChipIds(1, 8), (1, 0): ChipIds(0, 8)}],
    ids=["half", "one id twice"],
)
def test_a_mapping_that_cannot_be_right_changes_no_physical_id(mapped):
    reported = with_both_ids(parse_info(tools.info(describe(1, devices=[0, 1]))), mapped)
    assert [device.device_id for device in reported.devices] == [0, 1]


def without_cables(**change):
    host = describe(1, devices=[0, 1])
    for device in host["devices"]:
        device |= {"health": "Alarm", "codes": ["81078603"], "link": "DOWN", "net_health": "Socket fail"}
        device |= change
    return host


def test_one_host_without_network_cables_is_usable_and_several_are_not(tmp_path):
    reported = asked(install(tmp_path, without_cables()))
    assert reported.host(needs_network=False).usable == (0, 1)
    assert [npu.unusable for npu in reported.host(needs_network=True).npus] == [
        "health Alarm, 81078603 network port down"
    ] * 2


def test_a_fault_of_the_chip_counts_beside_one_of_its_port(tmp_path):
    reported = asked(install(tmp_path, without_cables(codes=["81078603", "40F84E00"])))
    assert [npu.unusable for npu in reported.host(needs_network=False).npus] == [
        "health Alarm, 40F84E00 card dropped off the bus"
    ] * 2


@pytest.mark.parametrize(
    ("link", "net_health", "reason"),
    [
        ("UP", "Success", ""),
        ("Init", "Init", ""),
        ("UP", "init", ""),
        (None, None, ""),
        ("DOWN", "Init", "network link DOWN"),
        ("UP", "Receive timeout", "network health: Receive timeout"),
    ],
)
def test_ports_of_several_hosts_are_judged_as_mindcluster_judges_them(link, net_health, reason):
    device = DeviceReport(device_id=0, model="910B4", link=link, net_health=net_health)
    assert device.unusable(needs_network=True) == reason
    assert device.unusable(needs_network=False) == ""


@pytest.mark.parametrize(
    ("model", "soc"),
    [
        ("910A", "910a"), ("910ProA", "910a"), ("910ProB", "910a"), ("910PremiumA", "910a"),
        ("910B", "910a"), ("Ascend910B", "910a"), ("Ascend 910B", "910a"),
        ("910B1", "910b"), ("910B4", "910b"), ("Ascend 910B2C", "910b"), ("Ascend910B4-1", "910b"),
        ("Ascend910", "a3"), ("910", "a3"), ("Ascend910_9392", "a3"), ("910_93", "a3"),
        ("Ascend910A3", "a3"), ("910C", "a3"),
        ("310P3", None), ("Ascend310P3", None), ("310B4", None), ("910A5", None), ("Ascend950PR", None),
        ("9100", None), ("910BX", None), ("", None),
    ],
)  # fmt: skip
def test_the_chip_family_follows_from_the_model(model, soc):
    assert soc_of(model) == soc


@pytest.mark.parametrize(
    ("model", "other"),
    [("310P3", True), ("Ascend310P3", True), ("Ascend950PR", True), ("Ascend910A5", True), ("Ascend910_9589", True),
     ("910B4", False), ("Ascend910A3", False), ("910D", False), ("", False)],
)  # fmt: skip
def test_no_rank_is_placed_on_a_chip_of_another_family(model, other):
    reason = DeviceReport(device_id=0, model=model).unusable(needs_network=False)
    assert reason == (f"{model} is no 910A, 910B or A3" if other else "")


def test_cpu_lists_of_the_kernel_are_read():
    assert ids_in_list("0-3,8,10-11\n") == (0, 1, 2, 3, 8, 10, 11)
    assert ids_in_list("\n") == ids_in_list("a-3,-1") == ()
