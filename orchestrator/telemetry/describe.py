"""Writes `docs/events.md` from the schemas: python -m orchestrator.telemetry.describe > docs/events.md"""

import dataclasses
import inspect
import re
from types import ModuleType

from orchestrator.telemetry.event import Event
from orchestrator.telemetry.events import group, rehearsal, run, training

_HEAD = """# Events

Generated from `orchestrator/telemetry/events/` by `python -m orchestrator.telemetry.describe > docs/events.md`.

These are the events of a run, whether `launch` or `MindSporeTrainer` started it. An event on disk is one line of JSON:
`{"t": unix seconds, "event": name, ...fields}`. While a run is alive its events are in segments,
`events/<lease>/<writer>/<number>.jsonl`, and each process writes its own. When a launch ends they are merged into
`events.jsonl`. Fields are only ever added. A reader keeps an event of another version as an `UnknownEvent`.
Whole numbers are at most 2**53 in size; other numbers are finite.
The program never decides from events; it decides from `state/<lease>.json`.
"""


def events_page() -> str:
    """The whole page, in Markdown."""
    rows = [
        f"| `{schema.name}` | {_meaning(schema)} | {_fields(schema)} |"
        for module in (run, group, training, rehearsal)
        for schema in _schemas(module)
    ]
    return "\n".join([_HEAD, "| event | meaning | fields |", "|---|---|---|", *rows, ""])


def _schemas(module: ModuleType) -> list[type[Event]]:
    """The events that the module defines, in its order."""
    defined = [item for item in vars(module).values() if isinstance(item, type) and issubclass(item, Event)]
    return [schema for schema in defined if schema.__module__ == module.__name__]


def _meaning(schema: type) -> str:
    return " ".join((inspect.getdoc(schema) or "").split()).replace("|", "\\|")


def _fields(schema: type) -> str:
    if not dataclasses.is_dataclass(schema):
        raise TypeError(f"{schema} is not a dataclass")
    named = (f"`{field.name}`: {_type(field.type)}" for field in dataclasses.fields(schema))
    return ", ".join(named) or "none"


def _type(annotation: object) -> str:
    text = (
        annotation.__name__
        if isinstance(annotation, type) and "[" not in str(annotation)
        else str(annotation)
    )
    return re.sub(r"orchestrator\.telemetry\.events\.\w+\.", "", text).replace("|", "or")


if __name__ == "__main__":
    print(events_page(), end="")
