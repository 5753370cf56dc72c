"""Parses what `hccn_tool` prints, and /etc/hccn.conf: the network ports of devices."""

import ipaddress
import re

from orchestrator.ascend.inventory.npu_smi import UnreadableOutput

_CONF = "/etc/hccn.conf"


def parse_address(text: str) -> str | None:
    """Address in `hccn_tool -i N -ip -g` (or `-ip -inet6 -g`); None when the port has none.

    0.0.0.0 is none, and so is a link-local address of IPv6 (fe80::1%eth0), which no other host can reach. A
    prefix length is cut off. Raises UnreadableOutput for an address line without an address.
    """
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and re.sub(r"[\s_-]", "", key).lower() in ("ipaddr", "ipaddress", "ipv6addr", "ipv6address"):
            address = _address(value, "hccn_tool -ip -g")
            known = ipaddress.ip_address(address)
            is_local = known.version == 6 and known.is_link_local
            if not ("%" in address or is_local or known.is_unspecified):
                return address
    return None


def parse_link(text: str) -> str:
    """`UP` or `DOWN` in `hccn_tool -i N -link -g`."""
    found = re.search(r"link status\s*:\s*([A-Za-z]+)", text)
    if found is None:
        raise UnreadableOutput("hccn_tool -link -g", "no link status in it")
    return found.group(1).upper()


def parse_net_health(text: str) -> str:
    """`Success` or what is wrong in `hccn_tool -i N -net_health -g`."""
    found = re.search(r"net health status\s*:\s*(\S[^\r\n]*)", text)
    if found is None:
        raise UnreadableOutput("hccn_tool -net_health -g", "no net health status in it")
    return found.group(1).strip()


def parse_ping_loss(text: str) -> float:
    """Percent of packets lost in `hccn_tool -i N -ping -g address A`."""
    found = re.search(r"(?<![\d.])(\d{1,3}(?:\.\d+)?)% packet loss", text)
    if found is None or float(found.group(1)) > 100:
        raise UnreadableOutput("hccn_tool -ping -g", "no packet loss in it")
    return float(found.group(1))


def parse_hccn_conf(text: str) -> dict[int, str]:
    """Address of each physical id in /etc/hccn.conf: IPv4 where there is one, as HCCL prefers it.

    Raises UnreadableOutput for a device with two addresses of one kind, because either may be meant.
    """
    addresses: dict[int, str] = {}
    # IPv6 first, so that IPv4 replaces it whatever the order of the lines is.
    for name in ("IPv6address", "address"):
        stated: dict[int, str] = {}
        for line in text.removeprefix("\ufeff").splitlines():
            key, equals, value = line.partition("=")
            found = re.fullmatch(rf"{name}_(\d{{1,4}})", key.strip(), flags=re.ASCII)
            if found and equals and value.strip():
                device, address = int(found.group(1)), _address(value, _CONF)
                if stated.setdefault(device, address) != address:
                    raise UnreadableOutput(_CONF, f"{name}_{device} is {stated[device]} and {address}")
        addresses |= stated
    return addresses


def _address(value: str, source: str) -> str:
    text = value.strip().split("/")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise UnreadableOutput(source, f"{text[:60]!r} is not an address") from None
