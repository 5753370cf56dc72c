"""report.html of one registration: its figures, and the pictures in the same folder."""

import html
from collections.abc import Sequence

_TITLES = {
    "tie_points.png": "Tie points: green ones agree with the transform, red ones do not",
    "checkerboard.png": "Checkerboard: roads and shores continue from field to field",
    "flicker.png": "Flicker: only what the sensors see differently may jump",
}
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:66rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse}td{padding:.15rem .8rem .15rem 0;vertical-align:top}"
    "img{max-width:100%;image-rendering:auto}.no{color:#b00}"
)


def render_page(facts: dict[str, object], pictures: Sequence[str]) -> str:
    """A whole HTML document. facts: the content of transform.json; pictures: file names in the folder of the page."""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(_text(value))}</td></tr>"
        for name, value in facts.items()
        if not name.startswith("grid_")
    )
    shown = "".join(f'<h2>{_TITLES[name]}</h2><img alt="{_TITLES[name]}" src="{name}">' for name in pictures)
    verdict = "" if facts["trusted"] else '<p class="no">This match is not trusted; no image was warped.</p>'
    head = f'<meta charset="utf-8"><title>Registration</title><style>{_STYLE}</style>'
    body = f"<h1>Registration</h1>{verdict}<table>{rows}</table>{shown}"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _text(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
