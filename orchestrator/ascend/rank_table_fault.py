"""A broken rule of a rank table, and how HCCL reads the scalars that the rules are about."""

import ipaddress
from dataclasses import dataclass
from typing import Any

from sdnet.errors import InputError

INVALID, MISSING, UNREADABLE, FAMILIES = "EI0014", "EI0017", "EI0004", "EI0001"
MINDSPORE = "MindSpore"

_HIGHEST_NUMBER = 2**32 - 1
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Fault:
    """One broken rule: HCCL's code (or `MindSpore`), where it is broken, the value, what to do."""

    code: str
    path: str
    value: Any
    fix: str

    def __str__(self) -> str:
        text = repr(self.value)
        shown = text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
        return f"{self.code} {self.path} = {shown}: {self.fix}"


class _Absent:
    def __repr__(self) -> str:
        return "(missing)"


ABSENT = _Absent()


def missing_or_invalid(value: Any) -> str:
    """HCCL's code for a value that is not there, or not what it should be."""
    return MISSING if value is ABSENT else INVALID


def decimal(value: Any) -> int | None:
    """A decimal that HCCL's parser takes; None for anything else, numbers of JSON too."""
    if not isinstance(value, str) or not value.isascii() or not value.isdigit() or len(value) > 10:
        return None
    number = int(value)
    return number if number <= _HIGHEST_NUMBER else None


def ip_address(value: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address without a zone; None for anything else."""
    if not isinstance(value, str) or "%" in value:
        return None
    try:
        return ipaddress.ip_address(value)
    except ValueError:
        return None


def is_ipv4(value: Any) -> bool:
    """True for a dotted quad as HCCL reads it."""
    address = ip_address(value)
    return address is not None and address.version == 4


class FaultyTable(InputError):
    """A table that cannot even be read as servers and devices; carries the fault."""

    def __init__(self, fault: Fault):
        super().__init__(fault)
        self.fault = fault
