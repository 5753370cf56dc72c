"""Parsers of the host tools hold on every known format, and on text that is cut off or garbled."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.ascend import hccn, npu_smi
from orchestrator.ascend.npu_smi import DeviceProcess, Health, ListedDevice, UnreadableOutput
from tests.ascend_fakes import tools
from tests.ascend_fakes.host import describe

PARSERS = [
    npu_smi.parse_info, npu_smi.parse_list, npu_smi.parse_mapping, npu_smi.parse_health, npu_smi.parse_usages,
    npu_smi.parse_super_pod, hccn.parse_address, hccn.parse_link, hccn.parse_net_health, hccn.parse_ping_loss,
    hccn.parse_hccn_conf,
]  # fmt: skip
TABLE_910B = """
+------------------------------------------------------------------------------------------------+
| npu-smi 23.0.3                   Version: 23.0.3                                               |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B4               | OK            | 88.2        30                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          26838/ 32768         |
+===========================+===============+====================================================+
| 2     910B4               | Alarm         | 88.2        30                0    / 0             |
| 0                         | 0000:C2:00.0  | 0           0    / 0          3    / 32768         |
+===========================+===============+====================================================+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
+===========================+===============+====================================================+
| 0       0                 | 6513          | python                   | 617                     |
| 0       0                 | 6514          |                          | 27977                   |
+===========================+===============+====================================================+
| No running processes found in NPU 2                                                            |
+===========================+===============+====================================================+
"""
TABLE_910A = """
+-------------------------------------------------------------------------------------------+
| npu-smi 22.0.4                    Version: 22.0.4                                         |
+----------------------+---------------+----------------------------------------------------+
| NPU   Name           | Health        | Power(W)     Temp(C)           Hugepages-Usage(page) |
| Chip  Device         | Bus-Id        | AICore(%)    Memory-Usage(MB)  HBM-Usage(MB)         |
+======================+===============+====================================================+
| 3     910A           | OK            | 67.2         35                15   / 15             |
| 0     3              | 0000:C1:00.0  | 0            621  / 13553      0    / 32768          |
+======================+===============+====================================================+
"""


def test_the_table_of_910b_tells_devices_and_who_holds_them():
    told = npu_smi.parse_info(TABLE_910B)
    assert told.version == "23.0.3"
    assert told.devices == (
        ListedDevice(npu=0, chip=0, device_id=0, model="910B4", health="OK", bus_id="0000:C1:00.0",
                     hbm_used_mb=26838, hbm_total_mb=32768),
        ListedDevice(npu=2, chip=0, device_id=2, model="910B4", health="Alarm", bus_id="0000:C2:00.0",
                     hbm_used_mb=3, hbm_total_mb=32768),
    )  # fmt: skip
    assert told.processes == (
        DeviceProcess(device_id=0, pid=6513, name="python", memory_mb=617),
        DeviceProcess(device_id=0, pid=6514, name="", memory_mb=27977),
    )


def test_the_table_of_910a_in_its_own_width_lists_no_processes_and_says_so():
    told = npu_smi.parse_info(TABLE_910A)
    assert [(device.device_id, device.model, device.hbm_total_mb) for device in told.devices] == [
        (3, "910A", 32768)
    ]
    assert told.processes is None


def test_the_two_dies_of_an_a3_card_are_two_devices_by_their_physical_id():
    host = describe(1, soc="a3", devices=range(4))
    host["devices"][3]["processes"] = [[77, "python3", 12]]
    told = npu_smi.parse_info(tools.info(host))
    assert [(d.npu, d.chip, d.device_id) for d in told.devices] == [
        (0, 0, 0),
        (0, 1, 1),
        (1, 0, 2),
        (1, 1, 3),
    ]
    assert [(process.device_id, process.pid) for process in told.processes] == [(3, 77)]


def test_without_a_column_for_it_the_physical_id_counts_the_dies_of_all_cards():
    text = tools.info({**describe(1, soc="a3", devices=range(4)), "soc": "910b"})
    assert [device.device_id for device in npu_smi.parse_info(text).devices] == [0, 1, 2, 3]


@pytest.mark.parametrize("soc", ["910a", "910b", "a3"])
def test_a_table_that_is_cut_off_is_never_taken_for_a_smaller_host(soc):
    whole = tools.info(describe(1, soc=soc, devices=range(4)))
    devices = npu_smi.parse_info(whole).devices
    for end in range(len(whole) - 1):
        try:
            told = npu_smi.parse_info(whole[:end])
        except UnreadableOutput:
            continue
        assert told.devices == devices[: len(told.devices)]
        # Only a cut between two frames is invisible, and then the list of processes is missing.
        assert told.processes is None or told.devices == devices


def test_the_list_of_npus_counts_their_chips():
    assert npu_smi.parse_list(tools.listing(describe(1, soc="a3", devices=range(4)))) == {0: 2, 1: 2}
    with pytest.raises(UnreadableOutput, match="total count 4, but 2 NPUs follow"):
        npu_smi.parse_list(
            tools.listing(describe(1, soc="a3", devices=range(4))).replace(": 2\n", ": 4\n", 1)
        )


def test_the_mapping_leaves_out_the_mcu():
    host = describe(1, soc="a3", devices=range(4))
    assert npu_smi.parse_mapping(tools.mapping(host)) == {(0, 0): 0, (0, 1): 1, (1, 0): 2, (1, 1): 3}


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
    ],
)
def test_a_die_knows_its_super_pod(text, expected):
    assert npu_smi.parse_super_pod(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ipaddr:192.161.200.10\nnetmask:255.255.255.0\n", "192.161.200.10"),
        ("ipaddr: 2001:db8::10/64\n", "2001:db8::10"),
        ("IPv6 address:2001:DB8::10\nprefix:64", "2001:db8::10"),
        ("netmask:255.255.255.0\n", None),
        ("", None),
    ],
)
def test_addresses_of_both_families_are_read(text, expected):
    assert hccn.parse_address(text) == expected


def test_an_address_line_without_an_address_is_refused():
    with pytest.raises(UnreadableOutput, match="'192.168' is not an address"):
        hccn.parse_address("ipaddr:192.168\n")


def test_hccn_conf_takes_keys_in_any_order_and_prefers_ipv4():
    text = "address_1=29.1.1.2\r\n# address_9=1.1.1.1\nIPv6address_1=2001:db8::1\nnetmask_0=255.0.0.0\n" \
        "IPv6address_0 = 2001:db8::2\naddress_0=\ngateway_0=29.1.1.254\n"  # fmt: skip
    assert hccn.parse_hccn_conf(text) == {1: "29.1.1.2", 0: "2001:db8::2"}
    assert hccn.parse_hccn_conf("") == {}


def test_links_and_health_of_the_network_are_read():
    assert hccn.parse_link("link status: UP\n") == "UP"
    assert hccn.parse_net_health("net health status: Receive timeout\n") == "Receive timeout"


@pytest.mark.parametrize(("shown", "loss"), [("0.00", 0.0), ("100.00", 100.0), ("33.33", 33.33), ("0", 0.0)])
def test_a_lost_ping_is_not_mistaken_for_a_good_one(shown, loss):
    assert hccn.parse_ping_loss(f"3 packets transmitted, 0 received, {shown}% packet loss") == loss


SAMPLES = [
    TABLE_910B,
    TABLE_910A,
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
