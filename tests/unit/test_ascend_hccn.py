"""The parsers of `hccn_tool` and /etc/hccn.conf: addresses, links and pings of the devices' network ports."""

import pytest

from orchestrator.ascend.inventory import hccn
from orchestrator.ascend.inventory.npu_smi import UnreadableOutput


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ipaddr:192.161.200.10\nnetmask:255.255.255.0\n", "192.161.200.10"),
        ("ipaddr: 2001:db8::10/64\n", "2001:db8::10"),
        ("IPv6 address:2001:DB8::10\nprefix:64", "2001:db8::10"),
        ("netmask:255.255.255.0\n", None),
        ("ipaddr:0.0.0.0\nnetmask:0.0.0.0\n", None),
        ("IPv6 address:fe80::1%eth0/64\n", None),
        ("IPv6 address:fe80::1/64\n", None),
        ("IPv6 address:fe80::1/64\nIPv6 address:2001:db8::10/64\n", "2001:db8::10"),
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
    assert hccn.parse_hccn_conf("\ufeffaddress_0=29.1.1.1\r\n") == {0: "29.1.1.1"}


def test_two_addresses_of_one_device_in_hccn_conf_are_refused() -> None:
    twice = "address_0=29.1.1.1\naddress_0=29.1.1.1\n"
    assert hccn.parse_hccn_conf(twice) == {0: "29.1.1.1"}
    with pytest.raises(UnreadableOutput) as refusal:
        hccn.parse_hccn_conf(twice + "address_0=29.1.1.2\n")
    assert str(refusal.value) == (
        "/etc/hccn.conf cannot be read (address_0 is 29.1.1.1 and 29.1.1.2); correct it on that host"
    )


def test_links_and_health_of_the_network_are_read():
    assert hccn.parse_link("link status: UP\n") == "UP"
    assert hccn.parse_net_health("net health status: Receive timeout\n") == "Receive timeout"


@pytest.mark.parametrize(("shown", "loss"), [("0.00", 0.0), ("100.00", 100.0), ("33.33", 33.33), ("0", 0.0)])
def test_a_lost_ping_is_not_mistaken_for_a_good_one(shown, loss):
    assert hccn.parse_ping_loss(f"3 packets transmitted, 0 received, {shown}% packet loss") == loss
