"""What readers may expect of an event: the type of each key that they use, and the keys they need.

Written by another version, cut by a full disk or edited by hand, a line may be JSON and still not be
an event that can be used. It is then skipped as a whole, so that no reader checks anything again.
Keys that are not listed here may hold anything, and events that are not listed need `t` and `event`.
"""

import math
from collections.abc import Callable
from typing import Any

_LATEST_S = 1e11  # year 5138: no calendar function takes much later ones


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 53


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _time(value: Any) -> bool:
    return _number(value) and 0 <= value < _LATEST_S


def _positive(value: Any) -> bool:
    return _whole(value) and value > 0


def _list(value: Any) -> bool:
    return isinstance(value, list)


def _ranks(value: Any) -> bool:
    """Numbers of ranks, or (event `leaving`) how many there are."""
    return _list(value) or _whole(value)


def _maybe(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


_TYPES: dict[str, Callable[[Any], bool]] = {
    "t": _time, "event": _text,
    "stage": _text, "status": _text, "kind": _text, "checkpoint": _text, "detail": _text,
    "reason": _maybe(_text),
    "generation": _whole, "world_size": _whole, "hosts": _list, "ranks": _ranks, "host": _maybe(_text),
    "rank": _maybe(_whole), "pid": _positive, "started": _maybe(_whole),
    "step": _whole, "steps": _whole, "epoch": _whole, "seconds": _number, "loss": _number, "lr": _number,
    "fpr95": _number, "accuracy": _number, "evaluate_s": _number,
    "done": _whole, "shards": _whole, "pairs_per_s": _number,
}  # fmt: skip
_REQUIRED = {
    "run_finished": {"status"},
    "stage_started": {"stage"},
    "stage_finished": {"stage"},
    "shard_done": {"done", "shards"},
    "rank_joined": {"rank", "host", "pid"},
    "progress": {"step"},
    "epoch": {"epoch", "step", "loss"},
    "resumed": {"step"},
    "failure_detected": {"kind", "step"},
}
_NEVER_NULL = {"rank_joined": ("rank", "host")}


def is_event(line: Any) -> bool:
    """Whether a JSON value is an event that every reader can use."""
    if not isinstance(line, dict) or not {"t", "event"} <= line.keys():
        return False
    if not all(check(line[key]) for key, check in _TYPES.items() if key in line):
        return False
    name = line["event"]
    never_null = all(line.get(key) is not None for key in _NEVER_NULL.get(name, ()))
    return _REQUIRED.get(name, set()) <= line.keys() and never_null
