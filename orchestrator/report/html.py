"""report.html: one page about a run that needs no network: figures, curves, pictures and events."""

import html
import time
from collections.abc import Iterable, Sequence

from orchestrator.report.lines import all_fields_of, line_of
from orchestrator.telemetry import events
from orchestrator.telemetry.event import Recorded

_WIDTH, _HEIGHT, _MARGIN = 640, 220, 40
# Too many to read, or in the page's tables and curves already.
_LEFT_OUT = (
    events.ShardDone, events.Progress, events.CheckpointSaved,
    events.Epoch, events.Evaluating, events.Evaluated,
)  # fmt: skip
_COLUMNS = ("epoch", "step", "loss", "lr", "seconds", "fpr95", "accuracy")
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.15rem .8rem .15rem 0;text-align:left;vertical-align:top}"
    "img{max-width:100%}svg{background:#fafafa}text{font-size:12px;fill:#555}"
)


def render_report(summary: dict[str, object], history: Sequence[Recorded], gallery: str = "") -> str:
    """A whole HTML document; everything that comes from the run's files is escaped.

    gallery: HTML that `gallery_of` made.
    """
    epochs = [recorded.event for recorded in history if isinstance(recorded.event, events.Epoch)]
    rates = [(epoch.epoch, epoch.fpr95) for epoch in epochs if epoch.fpr95 is not None]
    parts = [
        _table(("", ""), _figures(summary)),
        _curve("mean loss of each epoch", [(epoch.epoch, epoch.loss) for epoch in epochs]),
        _curve("FPR95 on the test pairs", rates),
        "<h2>Epochs</h2>",
        _table(_COLUMNS, [[getattr(epoch, column) for column in _COLUMNS] for epoch in epochs]),
        gallery,
        "<h2>What happened</h2>",
        _table(("time", "event"), _happened(history)),
    ]
    title = html.escape(f"{summary['name']}: {summary['status']}")
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    body = f"<h1>{title}</h1>{''.join(parts)}"
    page = f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'
    # JSON may contain half of a surrogate pair, which UTF-8 cannot encode.
    return page.encode("utf-8", "backslashreplace").decode("utf-8")


def _figures(summary: dict[str, object]) -> list[tuple[str, object]]:
    """The rows of the summary; a group of figures is one row each, at the end."""
    single = [(name, value) for name, value in summary.items() if not isinstance(value, dict)]
    groups = [(name, group) for name, group in summary.items() if isinstance(group, dict)]
    return single + [(f"{name}.{part}", value) for name, group in groups for part, value in group.items()]


def _happened(history: Sequence[Recorded]) -> list[tuple[str, str]]:
    """Time and text of each event: what the live view prints, or else all of its fields."""
    return [
        (time.strftime("%F %T", time.gmtime(recorded.t)) + " UTC", line_of(event) or all_fields_of(event))
        for recorded in history
        if not isinstance(event := recorded.event, _LEFT_OUT)
    ]


def _table(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    body = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{html.escape(head)}</th>' for head in heads)}</tr>{body}</table>"


def _cell(value: object) -> str:
    if value is None:
        return "&ndash;"
    return html.escape(f"{value:.6g}" if isinstance(value, float) else str(value))


def _curve(title: str, points: Sequence[tuple[float, float]]) -> str:
    """A line through the points, with the range of both axes; nothing for fewer than two."""
    if len(points) < 2:
        return ""
    (left, right), (low, high) = ((min(axis), max(axis)) for axis in zip(*points, strict=True))

    def place(x: float, y: float) -> str:
        across = (x - left) / ((right - left) or 1) * (_WIDTH - 2 * _MARGIN) + _MARGIN
        down = _HEIGHT - _MARGIN - (y - low) / ((high - low) or 1) * (_HEIGHT - 2 * _MARGIN)
        return f"{across:.1f},{down:.1f}"

    line = " ".join(place(x, y) for x, y in points)
    labels = (
        (5, _MARGIN - 8, f"{high:.4g}"), (5, _HEIGHT - _MARGIN + 4, f"{low:.4g}"),
        (_MARGIN, _HEIGHT - 12, f"epoch {left}"), (_WIDTH - 2 * _MARGIN, _HEIGHT - 12, f"epoch {right}"),
    )  # fmt: skip
    texts = "".join(f'<text x="{x}" y="{y}">{text}</text>' for x, y, text in labels)
    return (
        f'<h2>{html.escape(title)}</h2><svg width="{_WIDTH}" height="{_HEIGHT}">'
        f'<polyline fill="none" stroke="#06c" stroke-width="2" points="{line}"/>{texts}</svg>'
    )
