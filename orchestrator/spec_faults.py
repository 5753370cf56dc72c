"""What is wrong with a job file, in one line and in the words of YAML.

Pydantic names a fault by the branches of its own types and shows Python's values; whoever wrote
the file knows keys, lists, text and numbers.
"""

import dataclasses
import difflib
import json
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

# More are read by nobody at once, and the next check names the rest.
_MOST_TOLD = 3
_LONGEST_VALUE = 60
_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
# What each type of pydantic's errors, or its first part, asks for: "it must ...".
_MUST = {
    "int": "be a whole number",
    "float": "be a number",
    "finite": "be a number",
    "string_type": "be text",
    "bool": "be true or false",
    "tuple": "be a list",
    "dict": "be keys and values",
    "model": "be keys and values",
    "dataclass": "be keys and values",
    "literal_error": "be {expected}",
    "greater_than_equal": "be at least {ge}",
    "less_than_equal": "be at most {le}",
    "too_short": "hold at least {min_length}",
    "too_long": "hold at most {max_length}",
}

Path = tuple[str | int, ...]


def faults_line(error: ValidationError, job: type[BaseModel], raw: Any) -> str:
    """The first three faults of a job, each with its path, its value and the remedy, and how many more.

    raw: the values that were refused, of JSON's types. job: what they should have made.
    """
    by_path: dict[Path, list[ErrorDetails]] = {}
    for item in error.errors(include_url=False):
        by_path.setdefault(_path_in(raw, item["loc"]), []).append(item)
    # A value that may be one thing or another fails as each; a fault inside it says more.
    paths = [path for path in by_path if not any(path == other[: len(path)] != other for other in by_path)]
    told = [_fault(path, by_path[path], job) for path in paths[:_MOST_TOLD]]
    if len(paths) > _MOST_TOLD:
        told.append(f"and {len(paths) - _MOST_TOLD} more")
    return " ".join("; ".join(told).split())


def _path_in(raw: Any, location: tuple[str | int, ...]) -> Path:
    """The keys of `location` alone: pydantic also names the branch of a union there."""
    path: list[str | int] = []
    for part in location:
        if isinstance(raw, dict) and part in raw:
            raw = raw[part]
        elif isinstance(raw, list) and isinstance(part, int):
            raw = raw[part] if part < len(raw) else None
        elif not (isinstance(raw, dict) and part == location[-1] and not str(part).startswith("[")):
            continue
        path.append(part)
    return tuple(path)


def _fault(path: Path, items: list[ErrorDetails], job: type[BaseModel]) -> str:
    name, item = ".".join(str(part) for part in path) or "the job", items[0]
    value = item["input"]
    if item["type"] in _UNKNOWN_KEY:
        return f"{name} is not a key of a job (value {_shown(value)}); {_instead(path, job)}"
    if item["type"].startswith("missing"):
        return f"{name} is missing; give it a value"
    if item["type"] == "value_error":
        said = item["msg"].removeprefix("Value error, ")
        if said.partition(" ")[0] in _keys(path, job):
            return f"{name}.{said}" if path else said
        return f"{name} is {_shown(value)}; {said}"
    return f"{name} is {_shown(value)}; {_meant(value, items) or _must(items)}"


def _must(items: list[ErrorDetails]) -> str:
    asked = []
    for item in items:
        words = _MUST.get(item["type"]) or _MUST.get(item["type"].partition("_")[0])
        # An error of a type that no key of ours gives today is told in pydantic's words.
        asked.append(words.format(**item.get("ctx", {})) if words else f"fit: {item['msg']}")
    return f"it must {' or '.join(dict.fromkeys(asked))}"


def _meant(value: Any, items: list[ErrorDetails]) -> str:
    """How to write a number that YAML takes for text, as it does 1e-3 and '5'; empty for other values."""
    if not isinstance(value, str) or not any(item["type"].startswith(("int_", "float_")) for item in items):
        return ""
    try:
        number = float(value)
    except ValueError:
        return ""
    return f"YAML reads that as text: write {number:.12g}"


def _instead(path: Path, job: type[BaseModel]) -> str:
    near = difflib.get_close_matches(str(path[-1]), _keys(path[:-1], job), n=1)
    return f"did you mean {near[0]}?" if near else "remove it, or see docs/cluster_yaml.md"


def _keys(path: Path, job: type[BaseModel]) -> list[str]:
    """The keys that a job knows at this path; none where there is no section."""
    section: Any = job
    for part in path:
        section = get_args(section)[0] if isinstance(part, int) else _fields(section).get(str(part))
    # `train` may also name the recipe whose fields it overrides.
    return [*_fields(section), *(["recipe"] if path == ("train",) else [])]


def _fields(section: Any) -> dict[str, Any]:
    if isinstance(section, type) and issubclass(section, BaseModel):
        return {name: field.annotation for name, field in section.model_fields.items()}
    if dataclasses.is_dataclass(section):
        return {field.name: field.type for field in dataclasses.fields(section)}
    return {}


def _shown(value: Any) -> str:
    """The value as YAML has it; JSON is YAML."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
