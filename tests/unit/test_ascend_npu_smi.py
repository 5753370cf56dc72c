"""Parsers of the host tools handle every known format, and truncated or garbled text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.ascend.inventory import hccn, npu_smi
from orchestrator.ascend.inventory.host_tools import ToolFailed
from orchestrator.ascend.inventory.npu_smi import ChipIds, Health, UnreadableOutput
from orchestrator.ascend.inventory.npu_smi_table import ListedDevice, parse_info
from tests.ascend_fakes import tools
from tests.ascend_fakes.host import describe
from tests.ascend_fakes.recorded import recorded

PARSERS = [
    parse_info, npu_smi.parse_list, npu_smi.parse_mapping, npu_smi.parse_health, npu_smi.parse_usages,
    npu_smi.parse_super_pod, hccn.parse_address, hccn.parse_link, hccn.parse_net_health, hccn.parse_ping_loss,
    hccn.parse_hccn_conf,
]  # fmt: skip


@pytest.mark.parametrize(
    ("table", "version", "devices", "processes"),
    [
        (recorded("310p_25"), "25.3.rc1", [(6, 0, 6, 0, "310P3", "OK", None)], []),
        (recorded("910a_22"), "22.0.4", [(3, 0, 3, 3, "910A", "OK", 32768)], None),
        (
            recorded("910b_23"), "23.0.3",
            [(0, 0, 0, None, "910B4", "OK", 32768), (2, 0, 2, None, "910B4", "Alarm", 32768)],
            [(0, 6513, "python", 617, None), (0, 6514, "", 27977, None)],
        ),
        (
            recorded("910b_25"), "25.5.2", [(5, 0, 5, None, "910B3", "OK", 65536)],
            [(5, 71, "a | b", 12, None)],
        ),
        (recorded("910b_26.0"), "26.0.rc1", [(0, 0, 0, None, "910B2", "OK", None)], None),
        (
            recorded("910b_26.1"), "26.1.3",
            [(0, 0, 0, None, "910B2", "OK", 65536), (1, 0, 1, None, "910B2", "OK", 65536)],
            [(0, 300001, "python", 2048, None), (0, 300002, "python", None, 101)],
        ),
        (
            recorded("a3_25"), "25.5.1",
            [(6, 0, 12, None, "Ascend910", "OK", 65536), (6, 1, 13, None, "Ascend910", "OK", 65536)],
            [(13, 77, "python3", 12, None)],
        ),
        (
            recorded("950_25"), "25.7.rc1.1", [(1, 0, 1, None, "Ascend950DT", "Alarm", 131072)],
            [(1, 2000001, "pytest", 256, None)],
        ),
    ],
    ids=["310P", "910A", "910B 23", "910B 25", "26.0", "26.1", "A3", "950"],
)  # fmt: skip
def test_every_generation_of_the_table_is_read_by_its_headers(table, version, devices, processes):
    reported = parse_info(table)
    assert reported.version == version
    assert [
        (d.npu, d.chip, d.device_id, d.logical_id, d.model, d.health, d.hbm_total_mb)
        for d in reported.devices
    ] == devices
    held = None
    if reported.processes is not None:
        held = [(p.device_id, p.pid, p.name, p.memory_mb, p.container_pid) for p in reported.processes]
    assert held == processes


@pytest.mark.parametrize(
    "row",
    [
        "| 0       0                 | NA            | NA                       | NA                      |",
        "| 0       0                 | Not support   |                          | -                       |",
        "| 0       0                 | Not supported                                                      |",
        "| No process in device.                                                                          |",
        "| 0       0                 | No process in device.                                              |",
    ],
)
def test_a_row_that_shows_no_process_leaves_its_device_free_and_hides_no_other_process(row):
    text = recorded("910b_23")
    first = next(line for line in text.splitlines() if " 6513 " in line)
    assert [process.pid for process in parse_info(text.replace(first, row)).processes or ()] == [6514]


@pytest.mark.parametrize("held", ["python", "617"])
def test_a_process_without_its_id_is_not_overlooked(held):
    text = recorded("910b_23").replace("6513", "NA  ")
    text = text.replace("| python    ", "| NA        ") if held == "617" else text.replace("617", "NA ")
    with pytest.raises(UnreadableOutput, match=held):
        parse_info(text)


def test_a_device_is_read_whole():
    assert parse_info(recorded("910b_23")).devices[0] == ListedDevice(
        npu=0, chip=0, device_id=0, model="910B4", health="OK", bus_id="0000:C1:00.0",
        hbm_used_mb=26838, hbm_total_mb=32768,
    )  # fmt: skip


def test_a_process_on_a_device_of_another_container_is_ignored():
    text = recorded("910b_26.1").replace(
        "| 0       0                 | 300001", "| 7       0                 | 300001"
    )
    assert [process.pid for process in parse_info(text).processes or ()] == [300002]


@pytest.mark.parametrize(
    "line",
    [
        "dcmi module initialize failed. ret is -8005",
        "dcmi model initialized failed, because the device is used. ret is -8020",
    ],
)
def test_npu_smi_without_access_is_quoted_without_the_noise_before_it_and_with_the_remedy(line):
    with pytest.raises(ToolFailed) as refused:
        parse_info(f"DrvMngGetConsoleLogLevel failed. (g_conLogLevel=3)\n{line}\n")
    assert str(refused.value) == (
        f"`npu-smi info` failed: {line}; another container may hold the devices, or this one lacks the "
        "rights: stop the other one, or start this one with the devices or --privileged"
    )


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("", "(no table of devices in it)"),
        ("the driver is busy\n", "(no table of devices in it; it printed 'the driver is busy')"),
        (
            recorded("910b_23").rstrip().rpartition("\n")[0],
            "(it ends before its last frame, with '| No running processes",
        ),
        (
            recorded("910b_26.1").replace("300001", "many  "),
            "(the row '| 0 0 | many | python | 2048 | NA |')",
        ),
        (recorded("910b_26.1").replace("| 0000:C2:00.0  ", ""), "(the row '| 0 | 0 0 / 0 3400 / 65536 |')"),
        (
            recorded("910b_23").replace("| 0     910B4  ", "| x     910B4  "),
            "(the row '| x 910B4 | OK | 88.2 30 0 / 0 |')",
        ),
        (recorded("910b_23").replace("Bus-Id", "Address"), "(the header 'NPU Name | Health"),
        (recorded("a3_25").replace("| 1     13 ", "| 1     12 "), "(two devices have one physical id)"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_quoted_in_one_line(text, reported):
    with pytest.raises(UnreadableOutput) as refusal:
        parse_info(text)
    assert str(refusal.value).startswith(f"the output of `npu-smi info` cannot be read {reported}")
    assert "\n" not in str(refusal.value)


def test_the_two_dies_of_an_a3_card_are_two_devices_by_their_physical_id():
    host = describe(1, soc="a3", devices=range(4))
    host["devices"][3]["processes"] = [[77, "python3", 12]]
    reported = parse_info(tools.info(host))
    assert [(d.npu, d.chip, d.device_id) for d in reported.devices] == [
        (0, 0, 0),
        (0, 1, 1),
        (1, 0, 2),
        (1, 1, 3),
    ]
    assert reported.processes is not None
    assert [(process.device_id, process.pid) for process in reported.processes] == [(3, 77)]


def test_without_a_column_for_it_the_physical_id_counts_the_dies_of_all_cards():
    text = tools.info({**describe(1, soc="a3", devices=range(4)), "soc": "910b"})
    assert [device.device_id for device in parse_info(text).devices] == [0, 1, 2, 3]


@pytest.mark.parametrize("soc", ["910a", "910b", "a3"])
def test_a_table_that_is_cut_off_is_never_taken_for_a_smaller_host(soc):
    whole = tools.info(describe(1, soc=soc, devices=range(4)))
    devices = parse_info(whole).devices
    for end in range(len(whole) - 1):
        try:
            reported = parse_info(whole[:end])
        except UnreadableOutput:
            continue
        assert reported.devices == devices[: len(reported.devices)]
        # Only a cut between two frames is invisible, and then the list of processes is missing.
        assert reported.processes is None or reported.devices == devices


def test_the_list_of_npus_counts_their_chips():
    assert npu_smi.parse_list(tools.listing(describe(1, soc="a3", devices=range(4)))) == {0: 2, 1: 2}
    with pytest.raises(UnreadableOutput, match="total count 4, but 2 NPUs follow"):
        npu_smi.parse_list(
            tools.listing(describe(1, soc="a3", devices=range(4))).replace(": 2\n", ": 4\n", 1)
        )


def test_a_tool_without_the_list_of_npus_is_quoted():
    with pytest.raises(UnreadableOutput, match="no Total Count in it: 'not supported'"):
        npu_smi.parse_list("\nnot supported\n")


def test_the_mapping_knows_both_ids_and_leaves_out_the_mcu():
    host = describe(1, soc="a3", devices=range(12, 16)) | {"noise": True}
    assert npu_smi.parse_mapping(tools.mapping(host)) == {
        (6, 0): ChipIds(0, 12), (6, 1): ChipIds(1, 13), (7, 0): ChipIds(2, 14), (7, 1): ChipIds(3, 15),
    }  # fmt: skip
    assert npu_smi.parse_mapping(tools.mapping(describe(1, devices=[4, 5]))) == {
        (4, 0): ChipIds(0),
        (5, 0): ChipIds(1),
    }


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("", "no header with Chip Logic ID in it: ''"),
        ("dcmi failed\n", "no header with Chip Logic ID in it: 'dcmi failed'"),
        ("NPU ID   Chip ID   Chip Logic ID   Chip Name\n0   0   x   Ascend\n", "the row '0 0 x Ascend'"),
    ],
)
def test_a_mapping_that_cannot_be_read_is_quoted(text, reported):
    with pytest.raises(UnreadableOutput, match=reported):
        npu_smi.parse_mapping(text)


def test_health_names_every_code():
    text = (
        "\tHealth Status                  : Alarm\n"
        "\tError Code                     : A4025021 8C03A000 8c084e00\n"
        "\tError Information              : ascend_monitor adda heart beat lost error\n"
    )
    assert npu_smi.parse_health(text) == Health(
        "Alarm", ("A4025021", "8C03A000", "8C084E00"), "ascend_monitor adda heart beat lost error"
    )
    healthy = "\tHealth Status : OK\n\tError Code : NA\n\tError Information : NA\n"
    assert npu_smi.parse_health(healthy) == Health("OK", (), "")


def test_codes_on_lines_of_their_own_count_too():
    text = "\tHealth Status : Alarm\n\tError Code : 80E38003\n\t             80E18402\n\tError Information : NA\n"
    assert npu_smi.parse_health(text).codes == ("80E38003", "80E18402")


def test_memory_of_another_kind_is_not_taken_for_hbm():
    text = recorded("910b_25").replace("0    / 0          3400 / 65536", "1800 / 13553      NA   / NA   ")
    device = parse_info(text).devices[0]
    assert (device.hbm_used_mb, device.hbm_total_mb) == (None, None)


def test_usages_belong_to_the_chip_that_ends_their_group():
    group = "\tHBM Capacity(MB)               : {}\n\tHBM Usage Rate(%)              : 3\n\tChip ID : {}\n\n"
    text = (
        "\tNPU ID                         : 0\n\tChip Count : 2\n\n"
        + group.format(65536, 0)
        + group.format(1, 1)
    )
    assert npu_smi.parse_usages(text) == {
        0: {"HBM Capacity(MB)": 65536, "HBM Usage Rate(%)": 3},
        1: {"HBM Capacity(MB)": 1, "HBM Usage Rate(%)": 3},
    }
    with pytest.raises(UnreadableOutput, match="no Chip ID at its end"):
        npu_smi.parse_usages(text[: text.rindex("Chip ID")])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\tSDID        : 33554432\n\tSuper Pod Size : 384\n\tSuper Pod ID : 3\n", (33554432, "3")),
        ("SDID : 7\n| Super Pod ID                 : 4294967295          |", None),
        ("SDID : NA\nSuper Pod ID : NA\n", None),
        ("SDID : 4294967295\nSuper Pod ID : 0\n", None),
    ],
)
def test_a_die_knows_its_super_pod(text, expected):
    assert npu_smi.parse_super_pod(text) == expected


SAMPLES = [
    recorded("910b_23"),
    recorded("910a_22"),
    recorded("910b_26.1"),
    recorded("950_25"),
    tools.info(describe(1, soc="a3")),
    tools.listing(describe(1)),
    tools.mapping(describe(1)),
    "\tHealth Status : OK\n\tError Code : NA\n",
    "ipaddr:192.161.200.10\n",
    "address_0=1.2.3.4\n",
    "link status: UP",
]


def refusal(parse, text):
    try:
        parse(text)
    except UnreadableOutput as error:
        return str(error)
    return ""


@settings(max_examples=200)
@given(data=st.data(), sample=st.sampled_from(SAMPLES))
def test_garbled_text_is_read_or_refused_in_one_line_but_never_a_traceback(data, sample):
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(sample))] * 2)))
    text = sample[:start] + data.draw(st.text(max_size=20)) + sample[end:]
    assert all(len(refusal(parse, text).splitlines()) <= 1 for parse in PARSERS)
