"""HCCL's rules for the servers and devices in a rank table."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.ascend import device_groups
from orchestrator.ascend.device_groups import Soc
from orchestrator.ascend.rank_table.address_rules import AddressRules
from orchestrator.ascend.rank_table.fault import (
    ABSENT,
    INVALID,
    MINDSPORE,
    MISSING,
    Fault,
    code_of_list,
    code_of_text,
    decimal,
    is_ipv4,
    size_in_bytes,
)

PORT_KEYS = ("device_port", "host_port", "backup_device_port", "device_vnic_port")
# The value with which HCCL marks a die without a number.
NO_SUPER_DEVICE = 2**32 - 1
_MOST_SERVER_ID_BYTES = 64
_BLANKS = " \t\r\n\v\f"


@dataclass(frozen=True, slots=True)
class Seat:
    """A device of a server and its rank; None for a value that cannot be parsed."""

    path: str
    device: int | None = None
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class ServerSeats:
    """The devices of a server in the order of the file."""

    path: str
    seats: tuple[Seat, ...]

    @property
    def ids(self) -> list[int]:
        return [seat.device for seat in self.seats if seat.device is not None]


@dataclass(frozen=True, slots=True)
class ServerListRules:
    """Options of the rules of a `server_list`, which depend on the rest of the table.

    soc: None when the chip is not known. needs_address: every device must have an address. super_pods: the
    table lists super pods, so every die needs its number.
    """

    soc: Soc | None
    needs_address: bool
    super_pods: bool


def server_list_faults(servers: list[Any], rules: ServerListRules) -> tuple[list[Fault], list[ServerSeats]]:
    """Faults of all servers, and the devices of the servers that can be parsed."""
    reader = _ServerReader(rules, several=len(servers) > 1)
    for index, server in enumerate(servers):
        reader.read(server, f"$.server_list[{index}]")
    faults = [*reader.faults, *_rank_faults(reader.read_servers)]
    return faults, reader.read_servers


class _ServerReader:
    """Reads one server after another and collects faults; remembers values that must be unique in the table."""

    def __init__(self, rules: ServerListRules, *, several: bool):
        self.rules = rules
        self.faults: list[Fault] = []
        self.read_servers: list[ServerSeats] = []
        self._addresses = AddressRules(self.faults, needed=rules.needs_address, one_family=several)
        self._server_ids: dict[str, str] = {}

    def read(self, server: Any, path: str) -> None:
        if not isinstance(server, dict):
            self._fault(MISSING, path, server, "write an object with server_id and device")
            return
        self._server_id(server.get("server_id", ABSENT), f"{path}.server_id")
        self._host_ip(server.get("host_ip", ABSENT), f"{path}.host_ip")
        if "pod_ip" in server:
            fix = "remove it: MindSpore's scheduler would renumber the ranks by (pod_ip, DEVICE_ID)"
            self._fault(MINDSPORE, f"{path}.pod_ip", server["pod_ip"], fix)
        self._ports(server, path)
        devices = server.get("device", ABSENT)
        if not isinstance(devices, list) or not devices:
            self._fault(code_of_list(devices), f"{path}.device", devices, "list at least one device")
            return
        ids: list[int] = []
        seats = [self._device(entry, f"{path}.device[{index}]", ids) for index, entry in enumerate(devices)]
        self.read_servers.append(ServerSeats(path, tuple(seats)))

    def _server_id(self, value: Any, path: str) -> None:
        if not isinstance(value, str) or not 1 <= size_in_bytes(value) <= _MOST_SERVER_ID_BYTES:
            fix = f"write a string of 1 to {_MOST_SERVER_ID_BYTES} bytes"
            self._fault(code_of_text(value), path, value, fix)
        elif value != value.strip(_BLANKS):
            self._fault(INVALID, path, value, "remove the blanks around it; HCCL compares without them")
        elif value in self._server_ids:
            self._fault(INVALID, path, value, f"also at {self._server_ids[value]}; name each server once")
        else:
            self._server_ids[value] = path

    def _host_ip(self, value: Any, path: str) -> None:
        if value is not ABSENT and not is_ipv4(value):
            fix = "write an IPv4 address or leave it out"
            self._fault(code_of_text(value), path, value, fix)

    def _device(self, device: Any, path: str, ids: list[int]) -> Seat:
        if not isinstance(device, dict):
            self._fault(MISSING, path, device, "write an object with device_id, device_ip and rank_id")
            return Seat(path)
        number = self._device_id(device.get("device_id", ABSENT), f"{path}.device_id", ids)
        self._addresses.read(device, path)
        self._ports(device, path)
        self._super_device_id(device.get("super_device_id", ABSENT), f"{path}.super_device_id")
        value = device.get("rank_id", ABSENT)
        rank = decimal(value)
        if rank is None:
            self._fault(code_of_text(value), f"{path}.rank_id", value, 'write the rank, as in "0"')
        return Seat(path, number, rank)

    def _device_id(self, value: object, path: str, ids: list[int]) -> int | None:
        number = decimal(value)
        if number is None:
            self._fault(code_of_text(value), path, value, 'write the physical id, as in "0"')
            return None
        highest = device_groups.highest_id(self.rules.soc)
        if number > highest:
            chip = self.rules.soc or "a server"
            self._fault(INVALID, path, value, f"{chip} has devices 0 to {highest}; write the physical id")
        if number in ids:
            self._fault(INVALID, path, value, "the server lists this device twice; name each once")
        ids.append(number)
        return number

    def _super_device_id(self, value: object, path: str) -> None:
        fix = "write the decimal id of the die in its super pod"
        if value is ABSENT:
            if self.rules.super_pods:
                self._fault(code_of_text(value), path, value, fix)
            return
        number = decimal(value)
        if number is None or (self.rules.super_pods and number == NO_SUPER_DEVICE):
            self._fault(code_of_text(value), path, value, fix)

    def _ports(self, holder: dict[str, object], path: str) -> None:
        for key in PORT_KEYS:
            if key in holder and not 1 <= (decimal(holder[key]) or 0) <= 65535:
                fix = 'write a port from "1" to "65535"'
                self._fault(code_of_text(holder[key]), f"{path}.{key}", holder[key], fix)

    def _fault(self, code: str, path: str, value: object, fix: str) -> None:
        self.faults.append(Fault(code, path, value, fix))


def _rank_faults(servers: list[ServerSeats]) -> Iterator[Fault]:
    """Faults of the ranks. Ranks are 0 to N-1, each once. Each server has one block; blocks ascend in the list."""
    world_size = sum(len(server.seats) for server in servers)
    first, seen = 0, dict[int, str]()
    for server in servers:
        block = range(first, first + len(server.seats))
        first = block.stop
        strangers = []
        for seat in server.seats:
            path = f"{seat.path}.rank_id"
            if seat.rank is None:
                continue
            if seat.rank in seen:
                fix = f"also at {seen[seat.rank]}; each rank appears once in the table"
                yield Fault(INVALID, path, str(seat.rank), fix)
            elif seat.rank >= world_size:
                fix = f"ranks count from 0 to {world_size - 1}, each once; renumber them"
                yield Fault(INVALID, path, str(seat.rank), fix)
            elif seat.rank not in block:
                strangers.append(seat)
            seen.setdefault(seat.rank, path)
        if strangers:
            fix = (
                f"this server must hold ranks {block.start} to {block.stop - 1}: each server holds one "
                "unbroken block of ranks, and servers are listed by ascending rank, because collectives "
                "use the place in the list"
            )
            yield Fault(INVALID, f"{strangers[0].path}.rank_id", str(strangers[0].rank), fix)


def order_warnings(servers: list[ServerSeats]) -> Iterator[Fault]:
    """Warnings for servers whose ranks do not ascend with the device ids: older CANN ignores such ranks."""
    for server in servers:
        known = [seat for seat in server.seats if seat.rank is not None and seat.device is not None]
        devices = [seat.device for seat in sorted(known, key=lambda seat: seat.rank or 0)]
        if len(devices) == len(server.seats) and devices != sorted(server.ids):
            fix = "ranks do not ascend with the device ids; older CANN numbers a server by device id"
            yield Fault(INVALID, f"{server.path}.device[*].rank_id", devices, fix)
