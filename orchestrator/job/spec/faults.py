"""Describes what is wrong with a job file, in one line and in the terms of YAML.

Pydantic describes a fault by its own types and by Python's values. Users know keys, lists, text, numbers and the lines
of their file.
"""

import dataclasses
import difflib
import functools
import json
import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticUndefined

from orchestrator.ascend.inventory.device_report import meant_chip
from orchestrator.job.spec.meant_number import meant_number
from orchestrator.job.spec.values import JobValues, text_faults
from orchestrator.job.spec.yaml_file import Path, name_of
from sdnet.errors import InputError, shown

# One line has no room for more. The next check reports the others.
_MOST_NAMED = 3
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
    "greater_than": "be above {gt}",
    "greater_than_equal": "be at least {ge}",
    "less_than_equal": "be at most {le}",
    "too_short": "hold at least {min_length}",
    "too_long": "hold at most {max_length}",
}
# The meaning of an absent key whose default in the code is None.
_LEFT_OUT = {
    "cluster.workers_per_host": "no limit",
    "data.images": "synthetic pairs",
    "data.prepared": "patches that are cut from images",
    "data.split.train_scenes": "a share of the scenes",
    "data.split.test_scenes": "a share of the scenes",
}
_WITH_COMMA = re.compile(r"[-+]?[0-9]+(,[0-9]+)+")
_COLONS = re.compile("[:\uff1a]")  # ASCII, and the full-width one of Chinese and Japanese keyboards

Fault = tuple[Path, str]


def value_faults(raw: object, job: type[BaseModel]) -> list[Fault]:
    """Faults that no type refuses: a missing value, or a text that can only be a mistake."""
    texts = [(path, f"{name_of(path)} {problem}") for path, problem in text_faults(raw)]
    return [*_described(list(_without_value(raw, job, ())), lambda path: _no_value(path, job)), *texts]


def type_faults(error: ValidationError, job: type[BaseModel], raw: object, values: JobValues) -> list[Fault]:
    """Each fault that pydantic found in a job.

    raw: the refused values, of JSON's types.
    """
    by_path: dict[Path, list[ErrorDetails]] = {}
    for item in error.errors(include_url=False):
        names_key = item["type"] in _UNKNOWN_KEY or item["type"].startswith("missing")
        by_path.setdefault(_path_in(raw, item["loc"], names_key), []).append(item)
    # A value of a union type fails once for each type. A fault inside the value is more exact.
    above = {path[:length] for path in by_path for length in range(len(path))}
    paths = [path for path in by_path if path not in above]
    return _described(paths, lambda path: _fault(path, by_path[path], job, values))


def refusal(faults: list[Fault], values: JobValues) -> InputError:
    """The first three faults, each with its line, its path, its value and the remedy; and how many more."""
    said: list[str] = []
    before = ""
    for path, text in faults[:_MOST_NAMED]:
        place = values.place(path)
        # Name the file only once.
        shorter = place.removeprefix(f"{values.source} ") if said else place
        said.append(text if place == before else f"{shorter}: {text}")
        before = place
    if len(faults) > _MOST_NAMED:
        said.append(f"and {len(faults) - _MOST_NAMED} more")
    return InputError(" ".join("; ".join(said).split()))


def _described(paths: list[Path], describe: Callable[[Path], Fault]) -> list[Fault]:
    """Faults at these paths, of which only those that `refusal` can show get a text.

    Making a text is slow, and a file may have thousands of faults.
    """
    return [describe(path) for path in paths[:_MOST_NAMED]] + [(path, "") for path in paths[_MOST_NAMED:]]


def _without_value(raw: object, job: type[BaseModel], path: Path) -> Iterator[Path]:
    if isinstance(raw, dict):
        for key, inner in raw.items():
            yield from _without_value(inner, job, (*path, key))
    elif isinstance(raw, list):
        for index, inner in enumerate(raw):
            yield from _without_value(inner, job, (*path, index))
    elif raw is None and (not _keys(path[:-1], job) or path[-1] in _keys(path[:-1], job)):
        yield path


def _no_value(path: Path, job: type[BaseModel]) -> Fault:
    return path, f"{name_of(path)} has no value; {_remedy(path, job)}"


def _remedy(path: Path, job: type[BaseModel]) -> str:
    if _keys(path, job):
        return "indent its keys below it, or remove it"
    name = name_of(path)
    if path[0] == "train":
        return "give one, or leave the key out for the recipe's"
    default = _defaults(path[:-1], job).get(str(path[-1]), PydanticUndefined)
    if default is PydanticUndefined:
        return "give one, or remove it" if len(path) > 1 else "give one"
    left_out = _LEFT_OUT.get(name) or ("its default" if default is None else shown(default))
    return f"give one, or leave the key out for {left_out}"


def _path_in(raw: object, location: tuple[str | int, ...], names_key: bool) -> Path:
    """The keys in `location`, without the branches of unions that pydantic also puts there.

    names_key: the last part is a key, which may be missing in `raw`.
    """
    path: list[str | int] = []
    for part in location:
        if isinstance(raw, dict) and str(part) in raw:
            part = str(part)
            raw = raw[part]
        elif isinstance(raw, list) and isinstance(part, int):
            raw = raw[part] if part < len(raw) else None
        elif not (names_key and isinstance(raw, dict) and part == location[-1]):
            continue
        path.append(part)
    return tuple(path)


def _fault(path: Path, items: list[ErrorDetails], job: type[BaseModel], values: JobValues) -> Fault:
    name, item = name_of(path) or "the job", items[0]
    value = item["input"]
    if item["type"] in _UNKNOWN_KEY:
        return path, f"{name} is not a key of a job (value {shown(value)}); {_instead(path, value, job)}"
    if item["type"].startswith("missing") and isinstance(path[-1], int):
        return path[:-1], f"{name_of(path[:-1])} must hold at least {path[-1] + 1} values"
    if item["type"].startswith("missing"):
        return path, f"{name} is missing; give it a value"
    if item["type"] == "value_error":
        said = item["msg"].removeprefix("Value error, ")
        key = said.partition(" ")[0]
        if key in _keys(path, job):
            return (*path, key), f"{name}.{said}" if path else said
        return path, f"{name} is {shown(value)}; {said}"
    written = values.written(path)
    if item["type"] == "string_type" and isinstance(value, bool | int | float) and written:
        kind = shown(value) if isinstance(value, bool) else "a number"
        return path, f"{name} is {shown(written)[1:-1]}, which YAML reads as {kind}; put it in quotes"
    if item["type"] == "string_type" and isinstance(value, dict | list) and written:
        quoted = shlex.quote(f"{name}={json.dumps(written, ensure_ascii=False)}")
        return path, f"{name} is {shown(value)}; it must be text: put it in quotes, as --set {quoted}"
    return path, f"{name} is {shown(value)}; {_meant(path, items, job) or _must(items)}"


def _must(items: list[ErrorDetails]) -> str:
    asked = []
    for item in items:
        words = _MUST.get(item["type"]) or _MUST.get(item["type"].partition("_")[0])
        # Other types of errors, which no key gives today, are shown in pydantic's words.
        asked.append(words.format(**item.get("ctx", {})) if words else f"fit: {item['msg']}")
    return f"it must {' or '.join(dict.fromkeys(asked))}"


def _meant(path: Path, items: list[ErrorDetails], job: type[BaseModel]) -> str:
    """How to write the number or the section that a text probably means; empty for other values."""
    value = items[0]["input"]
    if path == ("cluster", "soc") and isinstance(value, str):
        return meant_chip(value)
    if all(item["type"].startswith("tuple_type") for item in items) and isinstance(value, str | dict):
        return _meant_list(path, value, _keys((*path, 0), job))
    if items[0]["type"] == "string_type" and isinstance(value, dict | list):
        alone = isinstance(value, list) and len(value) == 1 and isinstance(value[0], str)
        how = (
            f"write {shown(value[0])}, without the list" if alone else "give one value, and put it in quotes"
        )
        return f"it must be text: {how}"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 and _asks_for_number(items):
        return f"write {value:.0f}, a whole number"
    if not isinstance(value, str):
        return ""
    if items[0]["type"].startswith("bool_") and value.lower() in ("true", "false"):
        return f"that is text here: write {value.lower()}, without quotes"
    if _asks_for_number(items) and _WITH_COMMA.fullmatch(value):
        listed = any(item["type"].startswith("tuple_") for item in items)
        return (
            f"write a list: [{value.replace(',', ', ')}]"
            if listed
            else "write the number without a comma; a fraction has a point, as 0.5"
        )
    if _asks_for_number(items):
        return meant_number(value, str(path[-1]))
    key = _COLONS.split(value)[0].strip()
    return f"put an ASCII colon and a space after {key}" if key != value and key in _keys(path, job) else ""


def _meant_list(path: Path, value: str | dict[str, Any], keys: list[str]) -> str:
    """How to give a list; empty for an empty value. `--set` has no way to name one item of a list.

    keys: of each item, if the items are sections.
    """
    if not value:
        return ""
    if isinstance(value, dict) and all(key.isdecimal() for key in value):
        return f"it must be a list, and --set replaces a whole one: --set '{name_of(path)}=[...]'"
    if keys and isinstance(value, str):
        return f"it must be a list: give {' and '.join(keys)} of each item"
    return f"it must be a list: write [{shown(value)}]"


def _asks_for_number(items: list[ErrorDetails]) -> bool:
    return any(item["type"].startswith(("int_", "float_")) for item in items)


def _instead(path: Path, value: object, job: type[BaseModel]) -> str:
    key, colon, _ = str(path[-1]).partition(":")
    if value is None and colon and key in _keys(path[:-1], job):
        return f"put a space after {key}:"
    if value is None and key.isdecimal():
        return "a comma begins another key: write a fraction with a point, as 0.5, and 1000 without a comma"
    section, dot, inner = str(path[-1]).partition(".")
    if dot and inner in _keys((*path[:-1], section), job):
        return f"write `{section}:`, and below it, indented, `{inner}:`"
    last = str(path[-1])[:60].lower().replace("-", "_")
    near = difflib.get_close_matches(last, _keys(path[:-1], job), n=1)
    if near:
        return f"did you mean {near[0]}?"
    elsewhere = [f"{section}.{last}" for section in _fields(job) if last in _keys((section,), job)]
    if len(elsewhere) == 1:
        return f"did you mean {elsewhere[0]}?"
    return "remove it, or see docs/cluster_yaml.md"


def _section(path: Path, job: type[BaseModel]) -> Any:
    """The type of the value at a path; None where there is no such key."""
    section: object = job
    for part in path:
        section = next(iter(get_args(section)), None) if isinstance(part, int) else _fields(section).get(part)
    return section


def _keys(path: Path, job: type[BaseModel]) -> list[str]:
    """The keys that a job knows at this path; none where there is no section."""
    # `train` may also name the recipe whose fields it overrides.
    return [*_fields(_section(path, job)), *(["recipe"] if path == ("train",) else [])]


@functools.cache
def _fields(section: object) -> dict[str, object]:
    if isinstance(section, type) and issubclass(section, BaseModel):
        return {name: field.annotation for name, field in section.model_fields.items()}
    if dataclasses.is_dataclass(section):
        return {field.name: field.type for field in dataclasses.fields(section)}
    return {}


def _defaults(path: Path, job: type[BaseModel]) -> dict[str, object]:
    """The defaults of the section at a path."""
    section = _section(path, job)
    if isinstance(section, type) and issubclass(section, BaseModel):
        return {name: field.default for name, field in section.model_fields.items()}
    return {field.name: field.default for field in dataclasses.fields(section)} if _fields(section) else {}
