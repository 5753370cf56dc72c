"""A broken rule of a rank table, and how HCCL parses scalars."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import InputError

INVALID, MISSING, UNREADABLE, FAMILIES = "EI0014", "EI0017", "EI0004", "EI0001"
MINDSPORE = "MindSpore"

_HIGHEST_NUMBER = 2**32 - 1
_SHOWN_CHARACTERS = 80

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Fault:
    """One finding: HCCL's code (or `MindSpore`), where it is, the value, what to do."""

    code: str
    path: str
    value: object
    fix: str

    def __str__(self) -> str:
        text = repr(self.value)
        shown = text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
        return f"{self.code} {self.path} = {shown}: {self.fix}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with a table.

    faults: HCCL refuses the table, or silently reads it in another way. warnings: HCCL accepts it,
    but its documents or older versions of CANN do not.
    """

    faults: tuple[Fault, ...] = ()
    warnings: tuple[Fault, ...] = ()


class _Absent:
    def __repr__(self) -> str:
        return "(missing)"


ABSENT = _Absent()


def code_of_text(value: object) -> str:
    """HCCL's code for a wrong string. A missing value and a wrong JSON type have the same code."""
    return INVALID if isinstance(value, str) else MISSING


def code_of_list(value: object) -> str:
    """HCCL's code for a value that must be a list with entries."""
    return INVALID if isinstance(value, list) else MISSING


def decimal(value: object) -> int | None:
    """A decimal that HCCL's parser accepts; None for anything else, also for JSON numbers."""
    if not isinstance(value, str) or not value.isascii() or not value.isdigit() or len(value) > 10:
        return None
    number = int(value)
    return number if number <= _HIGHEST_NUMBER else None


def ip_address(value: object) -> IpAddress | None:
    """An address without a zone; None for anything else."""
    if not isinstance(value, str) or "%" in value:
        return None
    try:
        return ipaddress.ip_address(value)
    except ValueError:
        return None


def is_ipv4(value: object) -> bool:
    """True for a dotted quad that HCCL accepts."""
    address = ip_address(value)
    return address is not None and address.version == 4


def size_in_bytes(text: str) -> int:
    """Size in bytes of UTF-8, which HCCL's limits count. A lone surrogate counts three bytes."""
    return len(text.encode("utf-8", "surrogatepass"))


def one_line(faults: Sequence[Fault], source: str) -> str:
    """The first fault and the number of the others, in one line."""
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{source}: {faults[0]}{more}"


class FaultyTable(InputError):
    """A table that cannot be parsed into servers and devices; has the fault."""

    def __init__(self, fault: Fault):
        super().__init__(fault)
        self.fault = fault
