"""HCCL's rules, and our warnings, for the network addresses in a rank table: `device_ip` and `backup_device_ip`."""

import ipaddress
from collections.abc import Iterator, Sequence

from orchestrator.ascend.rank_table.fault import (
    ABSENT,
    FAMILIES,
    INVALID,
    MISSING,
    Fault,
    IpAddress,
    code_of_text,
    ip_address,
)

_HOW_TO_SEE = "(hccn_tool -i <device> -ip -g shows it)"
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")


def unreachable_addresses(servers: Sequence[object]) -> Iterator[Fault]:
    """A warning for each address that HCCL parses, but that no other host can connect to."""
    for index, server in enumerate(servers):
        devices = server.get("device") if isinstance(server, dict) else None
        for place, device in enumerate(devices if isinstance(devices, list) else ()):
            value = device.get("device_ip") if isinstance(device, dict) else None
            for part in value.split(",") if isinstance(value, str) else ():
                if kind := _unreachable_kind(ip_address(part)):
                    path = f"$.server_list[{index}].device[{place}].device_ip"
                    fix = f"{kind}, which no other host can reach; give the port's own address {_HOW_TO_SEE}"
                    yield Fault(INVALID, path, value, fix)


def _unreachable_kind(address: IpAddress | None) -> str:
    """Empty for an address that other hosts may reach."""
    if address is None:
        return ""
    if address.is_loopback:
        return "that is a loopback address"
    if address.is_multicast or address == _BROADCAST:
        return "that is an address of many hosts"
    # IPv6 gives each port one by itself. Without a zone it names no port. IPv4 has no zones.
    return "that is a link-local address" if address.version == 6 and address.is_link_local else ""


class AddressRules:
    """Reads the addresses of one device after another and collects faults.

    needed: every device must have an address. one_family: all must be IPv4, or all IPv6.
    """

    def __init__(self, faults: list[Fault], *, needed: bool, one_family: bool):
        self._faults = faults
        self._needed, self._one_family = needed, one_family
        self._seen: dict[str, dict[IpAddress, str]] = {"device_ip": {}, "backup_device_ip": {}}
        self._family: int | None = None
        self._count: int | None = None

    def read(self, device: dict[str, object], path: str) -> None:
        own = self._device_ip(device.get("device_ip", ABSENT), f"{path}.device_ip")
        if "backup_device_ip" in device:
            where = f"{path}.backup_device_ip"
            backup = self._addresses(device["backup_device_ip"], where, "backup_device_ip")
            if set(own) & set(backup):
                fix = "the backup cannot be the device's own address; give its partner's"
                self._fault(INVALID, where, device["backup_device_ip"], fix)

    def _device_ip(self, value: object, path: str) -> list[IpAddress]:
        # HCCL reads an empty text as no address.
        if value is ABSENT or value == "":
            if self._needed:
                why = f"with several servers each device needs its address {_HOW_TO_SEE}"
                self._fault(MISSING if value is ABSENT else INVALID, path, value, why)
            return []
        addresses = self._addresses(value, path, "device_ip")
        for address in addresses:
            self._family = self._family or address.version
            if self._one_family and address.version != self._family:
                fix = f"the table began with IPv{self._family}; use one IP family"
                self._fault(FAMILIES, path, value, fix)
                break
        if addresses:
            self._count = self._count or len(addresses)
            if len(addresses) != self._count:
                fix = f"the first device has {self._count} address(es); give each device as many"
                self._fault(INVALID, path, value, fix)
        return addresses

    def _addresses(self, value: object, path: str, key: str) -> list[IpAddress]:
        """The addresses of a comma-separated list; each must be legal and not used before."""
        if not isinstance(value, str):
            self._fault(code_of_text(value), path, value, f"write an IP address as a string {_HOW_TO_SEE}")
            return []
        seen, addresses = self._seen[key], []
        # HCCL ignores one comma at the end.
        for part in value.removesuffix(",").split(",") if value else ():
            address = ip_address(part)
            if address is None or address.is_unspecified:
                fix = f"{part!r} is no address of a device; write an IPv4 or IPv6 address {_HOW_TO_SEE}"
                self._fault(INVALID, path, value, fix)
                return []
            if address in seen:
                fix = f"also at {seen[address]}; each device needs its own address"
                self._fault(INVALID, path, value, fix)
            seen.setdefault(address, path)
            addresses.append(address)
        return addresses

    def _fault(self, code: str, path: str, value: object, fix: str) -> None:
        self._faults.append(Fault(code, path, value, fix))
