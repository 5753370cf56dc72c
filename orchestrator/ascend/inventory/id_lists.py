"""Parses lists of numbers: those of users, and those of the kernel. Pure."""

import re

from orchestrator.errors import InputError

_HIGHEST_ID = 4096
_SHOWN_CHARACTERS = 60
# [0-9] and not \d, which also matches digits of other scripts.
_PART = re.compile(r"[ \t]*([0-9]{1,5})(?:[ \t]*-[ \t]*([0-9]{1,5}))?[ \t]*")


def stated_ids(text: str, source: str) -> tuple[int, ...]:
    """Numbers that a user gave as `0-3,6`. Raises InputError for any other text.

    source: the option, for the message. A number may occur only once, and a range must ascend.
    """
    ids: list[int] = []
    for part in text.split(","):
        found = _PART.fullmatch(part)
        if not found:
            raise _refusal(text, source, f"{_short(part)!r} is no number and no range")
        first = int(found.group(1))
        last = int(found.group(2) or first)
        if last < first or last > _HIGHEST_ID:
            raise _refusal(text, source, f"{_short(part)!r} is no range from a lower to a higher number")
        if again := sorted(set(ids) & set(range(first, last + 1))):
            raise _refusal(text, source, f"it contains {again[0]} twice")
        ids.extend(range(first, last + 1))
    return tuple(ids)


def ids_in_list(text: str) -> tuple[int, ...]:
    """Numbers in the kernel's list format, as `0-3,8`. Other parts are ignored."""
    ids: list[int] = []
    for part in text.split(","):
        found = _PART.fullmatch(part.strip())
        if found:
            ids.extend(range(int(found.group(1)), int(found.group(2) or found.group(1)) + 1))
    return tuple(ids)


def _refusal(text: str, source: str, reason: str) -> InputError:
    return InputError(f"{source} {_short(text)!r}: {reason}; write device ids as in 0-3,6")


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
