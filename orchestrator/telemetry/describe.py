"""Writes `docs/events.md` from the schemas: python -m orchestrator.telemetry.describe > docs/events.md"""

import dataclasses
import inspect

from orchestrator.telemetry import events
from orchestrator.telemetry.record import SCHEMAS

_HEAD = """# Events

Generated from `orchestrator/telemetry/events.py` by `python -m orchestrator.telemetry.describe > docs/events.md`.

These are the events of a run, whether `launch` or `MindSporeTrainer` started it. An event on disk is one line of JSON:
`{"t": unix seconds, "event": name, ...fields}`. While a run is alive its events are in segments,
`events/<writer>/<number>.jsonl`, and each process writes its own. When a launch ends they are merged into
`events.jsonl`. Fields are only ever added. A reader keeps an event of another version as an `UnknownEvent`.
Whole numbers are at most 2**53 in size; other numbers are finite.
The program never decides from events; it decides from `state/<lease>.json`.
"""


def events_page() -> str:
    """The whole page, in Markdown."""
    rows = [
        f"| `{name}` | {_meaning(schema)} | {_fields(schema)} |"
        for name, schema in SCHEMAS.items()
        if schema.__module__ == events.__name__
    ]
    return "\n".join([_HEAD, "| event | meaning | fields |", "|---|---|---|", *rows, ""])


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
    return text.replace("orchestrator.telemetry.events.", "").replace("|", "or")


if __name__ == "__main__":
    print(events_page(), end="")
