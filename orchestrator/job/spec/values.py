"""The plain values of a job, and where each of them was written: a line of a file, or `--set`."""

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path as FilePath

from orchestrator.job.spec.yaml_file import Node, NotYaml, Path, name_of, read_yaml, read_yaml_file
from orchestrator.job.spec.yaml_syntax import NOT_EXPANDED, UNEXPANDED
from sdnet.errors import InputError, shown
from sdnet.paths import printable_path

_DEEPEST_KEY = 10
_LONGEST_TEXT = 4096
_TABLE_KEYS = {"server_list", "group_list"}  # HCCL's, of both forms of a rank table
_YAML_SPACE = " \t\r\n"  # `strip` alone also removes U+00A0 and U+3000, which may end the name of a folder
# Invisible characters, with which a path names another folder: controls, zero-width and direction marks, soft
# hyphens, fillers, tags. Not the joiners (U+200C, U+200D) and variation selectors, which some scripts need.
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_TYPOGRAPHIC_QUOTES = "\u201c\u201d\u201e\u2018\u2019\u201a\u00ab\u00bb"


@dataclass(frozen=True, slots=True)
class JobValues:
    """A job before it is checked.

    source: what messages call the file. root: its nodes, None for values that no file gave.
    overridden: the paths that `--set` gave, with their nodes.
    """

    values: dict[str, object]
    source: str
    root: Node | None
    overridden: dict[Path, Node]

    def place(self, path: Path) -> str:
        """Where the value at the path was written, as the beginning of a message."""
        for given in self.overridden:
            if given == path[: len(given)] or path == given[: len(path)] != ():
                return "--set"
        node = None if self.root is None else self.root.at(path)
        # A missing key has no line.
        return self.source if node is None or node is self.root else f"{self.source} line {node.line}"

    def written(self, path: Path) -> str | None:
        """How the value is spelled, for example `no` for False; None when that is unknown.

        Known of plain scalars, and of lists and sections that `--set` gave.
        """
        for given, node in self.overridden.items():
            if given == path[: len(given)]:
                return node.at(path[len(given) :]).written
        return None if self.root is None else self.root.at(path).written


def values_of_file(file: FilePath, overrides: tuple[str, ...]) -> JobValues:
    """The values of a cluster.yaml, changed by `key.path=value` overrides. Raises InputError."""
    root = read_yaml_file(file)
    if root.value is None:
        raise InputError(f"{file} is empty; see cluster_configs/ for examples")
    if not isinstance(root.value, dict):
        kind = "a list" if isinstance(root.value, list) else f"the value {shown(root.value)}"
        raise InputError(
            f"{file} contains {kind}, not `key: value` lines (ASCII colon, then a space); see cluster_configs/"
        )
    if _TABLE_KEYS & root.value.keys():
        raise InputError(f"{file} is a rank table and no job; use `launch --rank-table {file} --data FOLDER`")
    return _overridden({key: node.plain() for key, node in root.value.items()}, str(file), root, overrides)


def values_of_dict(raw: Mapping[str, object], source: str, overrides: tuple[str, ...]) -> JobValues:
    """Values that a program made, changed by `key.path=value` overrides. Raises InputError."""
    return _overridden(dict(copy.deepcopy(raw)), source, None, overrides)


def text_faults(value: object, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Texts, at any depth, that can only be mistakes: the place of each, and what is wrong with it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from text_faults(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from text_faults(inner, (*path, index))
    elif isinstance(value, str) and not _is_absent_address(value, path) and (problem := _problem(value)):
        yield path, problem


def _is_absent_address(value: str, path: Path) -> bool:
    """On a single server HCCL accepts a device without an address, which a rank table writes as ""."""
    return not value and path[:2] == ("cluster", "hosts") and "devices" in path


def printable(value: object) -> object:
    """The value; bytes of its texts that are not UTF-8 are replaced as in `printable_path`."""
    if isinstance(value, dict):
        return {key: printable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [printable(inner) for inner in value]
    return value if not isinstance(value, str) or value.isascii() else _printable_text(value)


def _printable_text(text: str) -> str:
    try:
        return printable_path(text)
    except UnicodeEncodeError:  # another half of a surrogate pair; `text_faults` refuses it
        return text


def _problem(text: str) -> str:
    invisible = _INVISIBLE.search(text)
    if not text:
        return "is empty; give a value, or leave the key out"
    if len(text) > _LONGEST_TEXT:
        return f"is {shown(text)}; a text may have {_LONGEST_TEXT} characters"
    if text.endswith("\n") and text[:-1].isprintable():
        return (
            f"is {shown(text)}, which ends with a line break; write it on one line, or a block with |- or >-"
        )
    if invisible:
        return f"is {shown(text)}, with the invisible character U+{ord(invisible[0]):04X}; remove it"
    if text != text.strip():
        return f"is {shown(text)}; remove the space around it"
    if text[0] in _TYPOGRAPHIC_QUOTES or text[-1] in _TYPOGRAPHIC_QUOTES:
        return f"is {shown(text)}, in typographic quotes; use ' or \""
    if UNEXPANDED.search(text):
        return f"is {shown(text)}; {NOT_EXPANDED}"
    return ""


def _overridden(
    values: dict[str, object], source: str, root: Node | None, overrides: tuple[str, ...]
) -> JobValues:
    given: dict[Path, Node] = {}
    for override in overrides:
        path, node = _read(override)
        hidden = next((name_of(other) for other in given if path == other[: len(path)] != other), None)
        if hidden:
            raise InputError(f"--set {name_of(path)} replaces --set {hidden}; give it before that one")
        given[path] = node
        _put(values, path, node.plain())
    return JobValues({key: printable(value) for key, value in values.items()}, source, root, given)


def _read(override: str) -> tuple[tuple[str, ...], Node]:
    key, equals, text = override.partition("=")
    path = tuple(key.split("."))
    plain = ".".join(part.strip() for part in path)
    if equals and plain != key:
        raise InputError(f"--set {shown(override)} has a space in its key; write {shown(plain)} before the =")
    if not equals or not all(path):
        raise InputError(f"--set {shown(override)} has no key=value; write it like --set train.epochs=5")
    if len(path) > _DEEPEST_KEY:
        raise InputError(f"--set {name_of(path[:3])}... has {len(path)} parts; no key of a job has so many")
    return path, _value(text.strip(_YAML_SPACE), f"--set {name_of(path)}")


def _value(text: str, source: str) -> Node:
    """The value of an override, read as YAML. Invalid YAML is text, because the shell has removed its quotes.

    Examples: `[::1]:6379`, `@scratch`, and the name of a folder that is not UTF-8.
    """
    # libyaml would drop a byte-order mark.
    if text.startswith("\ufeff") or any("\ud800" <= sign <= "\udfff" for sign in text):
        return Node(text)
    try:
        node = read_yaml(text, lambda line: source)
    except NotYaml:
        return Node(text)
    if node.written is not None and node.written != text:
        meaning = "`#` for a comment" if "#" in text else "`&` for the name of an anchor"
        raise InputError(f"{source} is {shown(text)}; YAML takes {meaning}: put the value in quotes")
    return replace(node, written=text) if isinstance(node.value, dict | list) else node


def _put(values: dict[str, object], path: tuple[str, ...], value: object) -> None:
    *parents, last = path
    section = values
    for depth, parent in enumerate(parents, 1):
        inner = section.setdefault(parent, {})
        if not isinstance(inner, dict):
            above = name_of(path[:depth])
            kind = {list: "a list", type(None): "no value"}.get(type(inner), "a plain value")
            raise InputError(
                f"--set {name_of(path)}: {above} contains {kind}, not keys; set or remove {above}"
            )
        section = inner
    section[last] = value
