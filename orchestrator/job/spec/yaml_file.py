"""A strict reader of YAML: one meaning for each spelling, a line number for each value.

YAML 1.1 and 1.2 read some spellings differently, and both accept some mistakes. Here:

* A plain `010`, `0x1F`, `1_000`, `1:30` or `2026-01-31` is text, exactly as written. A key that
  takes a number then refuses it. A plain decimal number is a number, with an exponent too (`1e-3`).
* A key that is given twice, an explicit tag, a plain value over several lines, and a second
  document are refused.
* Anchors, aliases and `<<` work, but cannot multiply into more than 100,000 values.

libyaml splits the text into events without recursion, and each event is checked when it arrives. So
neither deep nesting nor a huge file can exhaust the stack or the memory.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path as FilePath

import yaml

from orchestrator.job.spec.yaml_scalars import Scalar, is_integer, scalar_of
from orchestrator.job.spec.yaml_syntax import LOADER, cause_of, first_odd_space, on_one_line
from sdnet.errors import InputError, shown

Path = tuple[str | int, ...]

_MOST_BYTES = 1 << 20
_MOST_VALUES = 100_000
_DEEPEST = 20
_MOST_DIGITS = 300

# Also refuses U+0085, U+2028 and U+2029, which end a line in YAML 1.1 but not in YAML 1.2.
_NOT_TEXT = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_OTHER_ENCODINGS = {
    b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16",
}  # fmt: skip


class NotYaml(InputError):
    """The text breaks the syntax of YAML. Example: a list without its `]`."""


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a document, and where it is.

    value: text, number, bool or None; a list of nodes; or nodes by their keys. line: from 1.
    written: a plain scalar, or a whole list or section of `--set`, as it is spelled; None for any other value.
    size: values in it.
    """

    value: "Scalar | list[Node] | dict[str, Node]"
    line: int = 1
    written: str | None = None
    size: int = 1

    def plain(self) -> object:
        """The value as dicts, lists and scalars. No two of them share a part."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def at(self, path: Path) -> "Node":
        """The value at the path. If it does not exist, the deepest existing value on the path."""
        node = self
        for part in path:
            if isinstance(node.value, dict) and part in node.value:
                node = node.value[str(part)]
            elif isinstance(node.value, list) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
            else:
                break
        return node


def read_yaml_file(path: FilePath) -> Node:
    """The one document of a file. Raises InputError, with the line, for a file that is not accepted."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{path} cannot be read ({reason}); give the path of a cluster.yaml") from None
    if len(data) > _MOST_BYTES:
        raise InputError(f"{path} is larger than 1 MB; give the path of a cluster.yaml")
    text = _decoded(data, path)
    if problem := first_odd_space(text):
        raise InputError(f"{path} {problem}")
    return read_yaml(text, lambda line: f"{path} line {line}")


def read_yaml(text: str, place: Callable[[int], str]) -> Node:
    """The one document of a text. place: names a line in messages.

    Raises NotYaml for a syntax error, and InputError for other text that is not accepted.
    """
    wrong = _NOT_TEXT.search(text)
    if wrong:
        line = text.count("\n", 0, wrong.start()) + 1
        raise InputError(f"{place(line)} contains the character U+{ord(wrong[0]):04X}; remove it")
    return _Composer(text, place).document()


def _decoded(data: bytes, path: FilePath) -> str:
    for mark, encoding in _OTHER_ENCODINGS.items():
        if data.startswith(mark):
            raise InputError(f"{path} is {encoding}; save it as UTF-8")
    if b"\0" in data[:4]:
        raise InputError(f"{path} is UTF-16 or UTF-32, or no text at all; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path} line {line} is not UTF-8 (byte 0x{data[error.start]:02x}); save the file as UTF-8"
        ) from None


def name_of(path: Path) -> str:
    """A path as messages name it, `cluster.hosts.0.address`; long or unprintable keys are shortened."""
    parts = (str(part) for part in path)
    return ".".join(part if part.isprintable() and 0 < len(part) <= 60 else shown(part) for part in parts)


class _Composer:
    """Builds nodes from libyaml's events."""

    def __init__(self, text: str, place: Callable[[int], str]):
        self._events = yaml.parse(text, Loader=LOADER)
        self._lines = text.splitlines()
        self._place = place
        self._path: list[str | int] = []
        self._anchors: dict[str, Node] = {}
        self._values = 0

    def document(self) -> Node:
        self._next()  # the start of the stream
        if isinstance(self._next(), yaml.StreamEndEvent):
            return Node(None, written="")
        node = self._node(self._next())
        self._next()  # the end of the document
        more = self._next()
        if not isinstance(more, yaml.StreamEndEvent):
            raise self._refusal(
                more, "begins a second document; delete the line `---` and what follows it, or make two files"
            )
        return node

    def _next(self) -> yaml.Event:
        try:
            return next(self._events)
        except yaml.YAMLError as error:
            raise self._syntax(error) from None

    def _syntax(self, error: yaml.YAMLError) -> NotYaml:
        line, cause = cause_of(error, self._lines)
        return NotYaml(f"{self._place(line + 1)} {cause}")

    def _refusal(self, event: yaml.Event, problem: str) -> InputError:
        return self._refusal_at(_line_of(event), problem)

    def _refusal_at(self, line: int, problem: str) -> InputError:
        name = f": {name_of(tuple(self._path))}" if self._path else ""
        return InputError(f"{self._place(line)}{name} {problem}")

    def _count(self, event: yaml.Event, values: int) -> None:
        self._values += values
        if self._values > _MOST_VALUES:
            raise self._refusal(
                event,
                f"makes more than {_MOST_VALUES:,} values, with those of its aliases; remove aliases",
            )
        if len(self._path) > _DEEPEST:
            self._path = self._path[:1]
            raise self._refusal(event, f"is nested deeper than {_DEEPEST} levels; no key of a job is")

    def _node(self, event: yaml.Event, line: int | None = None) -> Node:
        """line: of the value's key; left out, that of the value itself."""
        line = line or _line_of(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, line)
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent), event
        self._count(event, 1)
        if event.tag is not None:
            raise self._refusal(event, f"has the tag {shown(event.tag)}; remove it, and put text in quotes")
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event, line)
        elif isinstance(event, yaml.SequenceStartEvent):
            items = self._items()
            node = Node(items, line, size=1 + sum(item.size for item in items))
        else:
            entries = self._entries()
            node = Node(entries, line, size=1 + sum(entry.size for entry in entries.values()))
        if event.anchor is not None:
            if event.anchor in self._anchors:
                raise self._refusal(
                    event, f"has the anchor &{event.anchor}, which is given twice; rename one"
                )
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: yaml.AliasEvent, line: int) -> Node:
        node = self._anchors.get(event.anchor or "")
        if node is None:
            raise self._refusal(
                event, f"is the alias *{event.anchor} of an anchor that is not complete before it; "
                "define it before, or put text in quotes"
            )  # fmt: skip
        self._count(event, node.size)
        return replace(node, line=line)

    def _items(self) -> list[Node]:
        items: list[Node] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            self._path.append(len(items))
            items.append(self._node(event))
            self._path.pop()
        return items

    def _entries(self) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._key(event)
            line = _line_of(event)
            self._path.append(key)
            if key in entries:
                first = entries[key].line
                raise self._refusal(event, f"is given twice, first in line {first}; delete one of them")
            entries[key] = self._node(self._next(), line)
            self._path.pop()
        return self._merged(entries)

    def _key(self, event: yaml.Event) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            raise self._refusal(
                event, "has a list or a section for a key; write text there, and fill in any {{ template }}"
            )
        if event.tag is not None:
            raise self._refusal(event, f"has a key with the tag {shown(event.tag)}; remove it")
        self._count(event, 0)
        return str(event.value)

    def _merged(self, entries: dict[str, Node]) -> dict[str, Node]:
        """The entries with those that `<<` brings from other sections; a section's own entries win."""
        if "<<" not in entries:
            return entries
        merge = entries.pop("<<")
        sections = merge.value if isinstance(merge.value, list) else [merge]
        merged: dict[str, Node] = {}
        for section in reversed(sections):
            if not isinstance(section.value, dict):
                raise self._refusal_at(merge.line, "has a `<<` that is no section; give it an alias of one")
            merged |= section.value
        return merged | entries

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> Node:
        text = str(event.value)
        first = _line_of(event)
        last = first if event.end_mark is None else event.end_mark.line + 1
        # A block with | or > has more lines on purpose, and so has a quoted text with line ends of its own.
        on_purpose = event.style in ("|", ">") or (event.style in ("'", '"') and "\n" in text)
        if first != last and not on_purpose:
            remedy = on_one_line(self._lines, first, last)
            raise self._refusal(event, f"is a text over lines {first} to {last}; {remedy}")
        if not event.implicit[0]:  # in quotes, or a block
            return Node(text, line)
        if len(text) > _MOST_DIGITS and is_integer(text):
            raise self._refusal(event, f"is a number of {len(text)} digits; no key takes one")
        return Node(scalar_of(text), line, written=text)


def _line_of(event: yaml.Event) -> int:
    """The line where it begins, from 1. Every event of a text has a mark."""
    assert event.start_mark is not None, event
    return event.start_mark.line + 1
