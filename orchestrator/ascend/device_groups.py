"""Which devices of a host may form a training group together, by SoC: HCCL's own rules.

Source: HCCL's public documents. 910A: 1, 2, 4 or 8 devices, the same number on every host; two
or four stay inside one ring (0-3 or 4-7) or are one of six listed sets of four. 910B: 1 to 8.
A3: a card is two dies, each a device; up to 16. Equal numbers per host are advised on 910B and
A3, required on 910A.
"""

from collections.abc import Collection, Iterable
from itertools import combinations
from typing import Literal, get_args

Soc = Literal["910a", "910b", "a3"]
SOCS: tuple[Soc, ...] = get_args(Soc)

HIGHEST_ID_910A = 7
MOST_PER_HOST: dict[Soc, int] = {"910a": 8, "910b": 8, "a3": 16}

_RINGS_910A = (frozenset(range(4)), frozenset(range(4, 8)))
_FOURS_ACROSS_RINGS_910A = tuple(
    frozenset(group)
    for group in ((0, 1, 4, 5), (0, 2, 4, 6), (0, 3, 4, 7), (1, 2, 5, 6), (1, 3, 5, 7), (2, 3, 6, 7))
)


def legal_sizes(soc: Soc) -> tuple[int, ...]:
    """How many devices of one host a group may take."""
    return (1, 2, 4, 8) if soc == "910a" else tuple(range(1, MOST_PER_HOST[soc] + 1))


def is_legal(devices: Collection[int], soc: Soc) -> bool:
    """True when these physical ids of one host may form (their part of) a group."""
    group = frozenset(devices)
    if len(group) != len(devices) or len(group) not in legal_sizes(soc):
        return False
    if min(group) < 0:
        return False
    if soc != "910a":
        return True
    if max(group) > HIGHEST_ID_910A:
        return False
    if len(group) in (1, 8):
        return True
    return any(group <= ring for ring in _RINGS_910A) or group in _FOURS_ACROSS_RINGS_910A


def choose(devices: Iterable[int], size: int, soc: Soc) -> tuple[int, ...] | None:
    """The first legal group of `size` among the devices, in ascending order; None when there is none.

    On 910A a group inside one ring is preferred to a listed one across rings.
    """
    free = sorted(set(devices))
    if soc != "910a":
        group = tuple(free[:size])
        return group if is_legal(group, soc) and len(group) == size else None
    candidates = [group for group in combinations(free, size) if is_legal(group, soc)]
    across = [frozenset(group) in _FOURS_ACROSS_RINGS_910A for group in candidates]
    ordered = sorted(zip(across, candidates, strict=True))
    return ordered[0][1] if ordered else None


def rule(soc: Soc) -> str:
    """The rule in words, for messages."""
    if soc == "910a":
        return (
            "910A takes 1, 2, 4 or 8 devices a host, 2 or 4 of them inside 0-3 or 4-7 or one of "
            + " ".join("{" + ",".join(map(str, sorted(g))) + "}" for g in _FOURS_ACROSS_RINGS_910A)
        )
    return f"{soc} takes 1 to {MOST_PER_HOST[soc]} different devices a host"
