"""Which devices of a host may form a training group, for each SoC. Source: HCCL's public documents and sources.

* 910A: 1, 2, 4 or 8 devices, the same number on every host. Two or four are inside one ring (0-3 or 4-7), or are one
  of six listed sets of four.
* 910B: 1 to 8 devices of a host, all in one PCIe half (0-7 or 8-15). A host alone can also give 10, 12, 14 or 16,
  where device i is paired with i + 8.
* A3: up to 16 devices. A card has two dies, and each die is a device.

Equal numbers per host are recommended on 910B and A3, and required on 910A.
"""

from collections.abc import Collection, Iterable
from itertools import combinations
from typing import Literal, get_args

Soc = Literal["910a", "910b", "a3"]
SOCS: tuple[Soc, ...] = get_args(Soc)

# On each host of a group over several hosts.
MOST_PER_HOST: dict[Soc, int] = {"910a": 8, "910b": 8, "a3": 16}
_MOST_ALONE: dict[Soc, int] = {"910a": 8, "910b": 16, "a3": 16}
_HIGHEST_ID: dict[Soc, int] = {"910a": 7, "910b": 15, "a3": 15}
_HALF_910B = 8

_RINGS_910A = (frozenset(range(4)), frozenset(range(4, 8)))
_FOURS_ACROSS_RINGS_910A = tuple(
    frozenset(group)
    for group in ((0, 1, 4, 5), (0, 2, 4, 6), (0, 3, 4, 7), (1, 2, 5, 6), (1, 3, 5, 7), (2, 3, 6, 7))
)


def highest_id(soc: Soc | None) -> int:
    """The largest physical id of a device; if the chip is not known, of any chip."""
    return max(_HIGHEST_ID.values()) if soc is None else _HIGHEST_ID[soc]


def legal_sizes(soc: Soc, *, alone: bool = False) -> tuple[int, ...]:
    """How many devices of one host a group may use. alone: the group has no other host."""
    if soc == "910a":
        return (1, 2, 4, 8)
    return tuple(range(1, (_MOST_ALONE if alone else MOST_PER_HOST)[soc] + 1))


def is_legal(devices: Collection[int], soc: Soc, *, alone: bool = False) -> bool:
    """True when documents allow a group, or its part on one host, of these physical ids."""
    return is_accepted(devices, soc, alone=alone) and not against_documents(devices, soc)


def is_accepted(devices: Collection[int], soc: Soc, *, alone: bool = False) -> bool:
    """True when HCCL starts with these physical ids of one host. Its code checks less than its documents demand."""
    group = frozenset(devices)
    if len(group) != len(devices) or len(group) not in legal_sizes(soc, alone=alone):
        return False
    if min(group) < 0 or max(group) > highest_id(soc):
        return False
    if soc == "910b":
        return _fits_halves(group)
    if soc == "910a" and len(group) == 4:
        return any(group <= ring for ring in _RINGS_910A) or group in _FOURS_ACROSS_RINGS_910A
    return True


def against_documents(devices: Collection[int], soc: Soc) -> str:
    """Why documents forbid a group that HCCL's code accepts; empty when they do not.

    HCCL's documents want a pair on 910A inside one ring. MindCluster's want up to 8 devices of a
    910B host inside one half.
    """
    group = frozenset(devices)
    if soc == "910a" and len(group) == 2 and not any(group <= ring for ring in _RINGS_910A):
        return "HCCL's documents forbid a pair across the rings 0-3 and 4-7; take both from one ring"
    if soc == "910b" and len(group) <= _HALF_910B and all(_halves(group)):
        return "MindCluster's documents keep up to 8 devices in one half (0-7 or 8-15); take them from one"
    return ""


def choose(devices: Iterable[int], size: int, soc: Soc, *, alone: bool = False) -> tuple[int, ...] | None:
    """The first legal group of `size` among the devices, in ascending order; None when there is none.

    Prefers a group inside one ring (910A) or half (910B).
    """
    free = sorted(set(devices))
    if soc == "910a":
        candidates = [group for group in combinations(free, size) if is_legal(group, soc)]
        across = [frozenset(group) in _FOURS_ACROSS_RINGS_910A for group in candidates]
        ordered = sorted(zip(across, candidates, strict=True))
        return ordered[0][1] if ordered else None
    candidates = [tuple(free[:size])]
    if soc == "910b":
        lower, upper = _halves(free)
        pairs = sorted(set(lower) & {device - _HALF_910B for device in upper})[: size // 2]
        across_halves = (*pairs, *(device + _HALF_910B for device in pairs))
        candidates = [tuple(lower[:size]), tuple(upper[:size]), across_halves]
    legal = (group for group in candidates if len(group) == size and is_legal(group, soc, alone=alone))
    return next(legal, None)


def most_in_cluster(devices: Collection[int], soc: Soc, limit: int) -> int:
    """How many of these devices a group over several hosts can use at most. Every smaller number is legal too.

    Not for 910a, where only powers of two are legal.
    """
    most = min(limit, MOST_PER_HOST[soc])
    usable = max(len(half) for half in _halves(devices)) if soc == "910b" else len(devices)
    return min(most, usable)


def rule(soc: Soc) -> str:
    """The rule as text, for messages."""
    if soc == "910a":
        return (
            "910A takes 1, 2, 4 or 8 devices a host, 2 or 4 of them inside 0-3 or 4-7 or one of "
            + " ".join("{" + ",".join(map(str, sorted(g))) + "}" for g in _FOURS_ACROSS_RINGS_910A)
        )
    if soc == "910b":
        return (
            "910B takes 1 to 8 devices of one half (0-7 or 8-15) of a host; a host alone also gives 10, 12, "
            "14 or 16 devices that pair i with i + 8"
        )
    return f"{soc} takes 1 to {MOST_PER_HOST[soc]} different devices a host"


def _halves(devices: Iterable[int]) -> tuple[list[int], list[int]]:
    """Devices of the lower and of the upper PCIe half of a 910B host, ascending."""
    ordered = sorted(devices)
    return [d for d in ordered if d < _HALF_910B], [d for d in ordered if d >= _HALF_910B]


def _fits_halves(group: Collection[int]) -> bool:
    lower, upper = _halves(group)
    return not lower or not upper or lower == [device - _HALF_910B for device in upper]
