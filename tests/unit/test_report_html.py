"""report.html: well-formed, whole for a run that got nowhere, and deaf to what names and logs contain."""

from typing import Any
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.report.html import render_report

SUMMARY: dict[str, Any] = {"name": "one", "status": "failed", "fpr95": None, "seconds": {"train": 1.5}}
EPOCHS = [
    {"t": 0.0, "event": "epoch", "epoch": n, "step": n, "loss": 1.0 / n, "lr": 0.1, "steps": 1,
     "seconds": 2.0, "fpr95": 0.5 / n, "accuracy": 0.9}
    for n in (1, 2, 3)
]  # fmt: skip


def parsed(page: str) -> ElementTree.Element:
    """The page as XML; all that keeps it from being XML is the doctype, the meta tag and one entity."""
    page = page.removeprefix("<!doctype html>").replace('<meta charset="utf-8">', "").replace("&ndash;", "-")
    return ElementTree.fromstring(page)


def test_a_run_that_never_trained_has_a_report_without_curves() -> None:
    page = parsed(render_report(SUMMARY, []))
    assert page.findtext("body/h1") == "one: failed"
    assert page.findall("body/svg") == []


def test_loss_and_fpr95_are_drawn_and_each_epoch_has_a_row() -> None:
    page = parsed(render_report(SUMMARY, EPOCHS))
    lines = page.findall("body/svg/polyline")
    assert [len(line.attrib["points"].split()) for line in lines] == [3, 3]
    assert [row[0].text for row in page.findall("body/table")[1]] == ["epoch", "1", "2", "3"]


def test_failures_are_told_in_the_words_of_the_live_view() -> None:
    failure = {"t": 0.0, "event": "failure_detected", "kind": "hang", "rank": 1, "host": "h", "detail": "d"}
    assert "failure: hang rank 1 on h: d" in render_report(SUMMARY, [failure])


@given(st.text(st.characters(exclude_categories=("Cs", "Cc"))))
def test_what_a_failure_says_cannot_become_markup(detail: str) -> None:
    event = {"t": 0.0, "event": "giving_up", "reason": f"<script>{detail}</script>"}
    page = parsed(render_report(SUMMARY, [event]))
    assert page.find(".//script") is None
    assert detail in "".join(page.itertext())
