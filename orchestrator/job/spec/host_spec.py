"""`cluster.hosts` of a job file: Ascend hosts with the devices that the user states."""

import ipaddress
import re
from collections.abc import Sequence

from pydantic import Field, field_validator

from orchestrator.ascend.device_groups import Soc, highest_id
from orchestrator.job.spec.section import Section
from sdnet.errors import shown

_DEVICE = re.compile(r"0|[1-9][0-9]{0,4}")
_LOOPBACK_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")
_LIKE_IPV4 = re.compile(r"[0-9.]+")


class HostSpec(Section):
    """An Ascend host: `address` is an IP address or a host name, `devices` maps physical ids to device addresses."""

    address: str
    devices: dict[int, str] = Field(min_length=1)

    @field_validator("address")
    @classmethod
    def _names_a_host(cls, value: str) -> str:
        """Refuse what only looks like an address: it would stand in the rank table."""
        try:
            is_any = ipaddress.ip_address(value).is_unspecified
        except ValueError:
            if _LIKE_IPV4.fullmatch(value):
                raise ValueError("give an IPv4 address, as 10.0.0.1, or a host name") from None
            if ":" in value:
                raise ValueError("give the address or the name of the host alone, without a port") from None
            return value
        if is_any:
            raise ValueError("give the address of one host; this one stands for all addresses of a host")
        return value

    @field_validator("devices", mode="before")
    @classmethod
    def _plain_ids(cls, value: object) -> object:
        """Refuse ids that have another number in another reader of YAML, like 010."""
        if not isinstance(value, dict):
            return value
        for device in value:
            if not _DEVICE.fullmatch(str(device)):
                raise ValueError(f"{shown(device)} is no device id; write a whole number, as 0 or 12")
        return {int(device): address for device, address in value.items()}


def refuse_loopback_of_several(hosts: Sequence[HostSpec]) -> None:
    """Raise ValueError for one of several hosts whose address means another host on each of them."""
    for number, host in enumerate(hosts if len(hosts) > 1 else ()):
        if _is_loopback(host.address):
            raise ValueError(
                f"hosts.{number}.address is {host.address}, which every host calls itself; give the address at which "
                "the other hosts reach it"
            )


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address.rstrip(".").lower() in _LOOPBACK_NAMES


def refuse_impossible_ids(hosts: Sequence[HostSpec], soc: Soc) -> None:
    """Raise ValueError for the id of a device that no host of this chip has."""
    for number, host in enumerate(hosts):
        if max(host.devices) > highest_id(soc):
            raise ValueError(
                f"hosts.{number}.devices has the id {max(host.devices)}; a host of {soc} has the ids 0 to "
                f"{highest_id(soc)}"
            )
