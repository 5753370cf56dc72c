"""From the path of a rank table to its JSON value, as strictly as HCCL reads both."""

import json
import math
import os
import reprlib
import stat
from pathlib import Path
from typing import Any

from orchestrator.ascend.rank_table.fault import UNREADABLE, Fault, FaultyTable
from orchestrator.errors import InputError

_SUFFIX = ".json"
_SHOWN_CHARACTERS = 40
# A table of 10,000 ranks has about 2 MB. Without a limit a wrong file could use up the memory.
_MOST_BYTES = 100_000_000


def why_hccl_skips_path(path: str) -> str:
    """What is wrong with the resolved path of a rank table, as the end of a sentence; empty if nothing is.

    HCCL looks for the FIRST `.json` in the whole path, and the path must end there.
    """
    name = Path(path).name
    if not name.endswith(_SUFFIX):
        return "does not end in .json; HCCL reads no other name"
    if name == _SUFFIX:
        return "has no name before .json; rename the file"
    if path.index(_SUFFIX) + len(_SUFFIX) != len(path):
        return (
            "contains .json twice; HCCL accepts it once in the whole path, at the end: rename the other part"
        )
    return ""


def resolved_path(path: Path) -> str:
    """The path without symbolic links. Raises InputError for a relative one when the current directory is gone."""
    try:
        return os.path.realpath(path)
    except FileNotFoundError:
        raise InputError(
            f"the rank table is {path}; the current directory was deleted: change to one that exists, "
            "or give the full path"
        ) from None


def read_table_text(path: Path) -> str:
    """The text of a rank table file; a file that HCCL would not open raises InputError."""
    resolved = resolved_path(path)
    if why := why_hccl_skips_path(resolved):
        shown = "the path" if os.fspath(path) == resolved else f"its target {resolved}"
        raise InputError(f"{path}: {UNREADABLE}: {shown} {why}")
    try:
        found = Path(resolved).stat()
        # Opening a FIFO or a device would block.
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{path}: {UNREADABLE}: cannot be read (not a file); give a rank table file")
        if found.st_size > _MOST_BYTES:
            raise InputError(
                f"{path}: {UNREADABLE}: has {found.st_size} bytes, more than any rank table; give a rank table file"
            )
        text = Path(resolved).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path}: {UNREADABLE}: cannot be read ({error.strerror}); give a readable rank table"
        ) from None
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    if "\0" in text[:4]:  # UTF-16 without its mark
        raise _not_utf8(path)
    return text


def _not_utf8(path: Path) -> InputError:
    return InputError(f"{path}: {UNREADABLE}: is not UTF-8, which HCCL reads; save it as UTF-8")


def table_of_text(text: str) -> Any:
    """The JSON value of a rank table's text; raises FaultyTable when it is not JSON.

    Stricter than Python: NaN, Infinity, numbers beyond a double and lone surrogates are not JSON for
    HCCL. A key that appears twice in one object is refused, because HCCL silently takes the last one.
    """
    repeated = _RepeatedKeys()
    try:
        table = json.loads(
            # HCCL skips one byte-order mark.
            text.removeprefix("\ufeff"),
            object_pairs_hook=repeated.object_of,
            parse_constant=_refuse_constant,
            parse_float=_number,
        )
        json.dumps(table, ensure_ascii=False).encode()
    except (ValueError, RecursionError, OverflowError) as error:
        fix = f"this is not JSON ({_reason(error)}); {_remedy(error)}"
        raise FaultyTable(Fault(UNREADABLE, "$", text[:_SHOWN_CHARACTERS], fix)) from None
    if fault := repeated.first_fault(table):
        raise FaultyTable(fault)
    return table


def _reason(error: Exception) -> str:
    """Why a text cannot be parsed, without the advice that Python adds for programmers."""
    if isinstance(error, UnicodeEncodeError):
        return "a lone surrogate"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, json.JSONDecodeError) or "integer string" not in str(error):
        return str(error)
    return "a number of too many digits"


def _remedy(error: Exception) -> str:
    """What to do with a text that cannot be parsed. The examples in HCCL's documents have comments."""
    if not isinstance(error, json.JSONDecodeError):
        return "write a new table"
    before, rest = error.doc[: error.pos].rstrip(), error.doc[error.pos :].lstrip()
    if rest.startswith(("//", "/*", "#")):
        return "remove the comments"
    if before.endswith(",") and rest.startswith(("}", "]")):
        return f"remove the comma before the {rest[0]}"
    return "write a new table"


class _RepeatedKeys:
    """Notes the objects of a text that have a key twice: the parser does not know their paths yet."""

    def __init__(self) -> None:
        # By id() of the object; the object itself is kept, so that no other one gets its id.
        self._found: dict[int, tuple[dict[str, Any], str, Any]] = {}

    def object_of(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """The object of these pairs, with the last value of each key."""
        values: dict[str, Any] = {}
        for key, value in pairs:
            if key in values:
                self._found.setdefault(id(values), (values, key, values[key]))
            values[key] = value
        return values

    def first_fault(self, table: Any) -> Fault | None:
        """The fault of the first such object of the parsed table, or None."""
        if not self._found:
            return None
        left = [("$", table)]
        while left:
            path, value = left.pop()
            if id(value) in self._found:
                values, key, first = self._found[id(value)]
                fix = (
                    f"the key appears twice in one object, first with {_shown(first)}, and HCCL takes the last; "
                    "remove one of them"
                )
                return Fault(UNREADABLE, f"{path}{_step(key)}", values[key], fix)
            left.extend(reversed([(path + step, inner) for step, inner in _inside(value)]))
        return None


def _inside(value: Any) -> list[tuple[str, Any]]:
    """(step of the path, value) of each value in an object or a list."""
    if isinstance(value, dict):
        return [(_step(key), inner) for key, inner in value.items()]
    return [(f"[{index}]", inner) for index, inner in enumerate(value)] if isinstance(value, list) else []


def _step(key: str) -> str:
    return f".{key}" if key.isidentifier() and len(key) <= _SHOWN_CHARACTERS else f"[{_shown(key)}]"


def _shown(value: Any) -> str:
    # Bounded in size and depth, unlike repr().
    text = reprlib.repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _number(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text[:20]} is too large")
    return number
