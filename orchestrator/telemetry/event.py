"""The base of all events: one schema each, JSON on disk.

On disk an event is `{"t": unix seconds, "event": name, ...fields}`. Fields may be added with a default; they are
never renamed. For an unknown name, or a field that is missing or has another type, a reader gets an `UnknownEvent`.
"""

import dataclasses
import re
import types
import typing
from dataclasses import dataclass
from math import isfinite
from typing import ClassVar, Self, TypeVar

T = TypeVar("T")

# Whole numbers up to this one are exact as floats. JSON of other programs may have larger ones.
_LARGEST_INT = 1 << 53


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened. Subclasses are the schemas."""

    name: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        cls.name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    def to_dict(self, t: float) -> dict[str, object]:
        """The JSON object on disk; `t` in unix seconds."""
        return {"t": round(t, 3), "event": self.name, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, raw: dict[str, object]) -> Self:
        """Build the event from its fields on disk; other keys are ignored. Raises TypeError or ValueError."""
        hints = typing.get_type_hints(cls)
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: typed_value(raw[name], hints[name]) for name in names if name in raw})


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownEvent(Event):
    """An event of another version of this program; `event` is its name on disk."""

    event: str
    fields: dict[str, object]


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event and when its writer recorded it, in unix seconds of the writer's host."""

    t: float
    event: Event


def typed_value(value: object, hint: object) -> object:
    """A JSON value, converted to the type in a schema. Raises TypeError or ValueError when it has another type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return (
            None if value is None else typed_value(value, next(a for a in arguments if a is not type(None)))
        )
    if origin is tuple:
        return tuple(typed_value(item, arguments[0]) for item in _checked(value, list))
    if origin is dict:
        return {key: typed_value(item, arguments[1]) for key, item in _checked(value, dict).items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = typing.get_type_hints(hint)
        items = _checked(value, dict).items()
        return hint(**{name: typed_value(item, hints[name]) for name, item in items if name in hints})
    if type(value) is int and abs(value) > _LARGEST_INT or type(value) is float and not isfinite(value):
        raise ValueError(f"{value!r} is out of range")
    if hint is float and type(value) is int:
        return float(value)
    assert isinstance(hint, type), hint
    return _checked(value, hint)


def _checked(value: object, kind: type[T]) -> T:
    if type(value) is not kind or not isinstance(value, kind):  # a bool is an int, too
        raise TypeError(f"{value!r} is not {kind}")
    return value
