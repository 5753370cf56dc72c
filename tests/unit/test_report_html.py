"""report.html: well-formed, also for a run that never trained, and no value becomes markup."""

import base64
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import JobSpec, spec_from_dict
from orchestrator.report.gallery import gallery_of
from orchestrator.report.html import render_report
from orchestrator.telemetry.event import Event, UnknownEvent
from orchestrator.telemetry.events import FailureDetected, GivingUp, Progress
from sdnet.data.augment import Views, Where, middle
from sdnet.data.store import PatchFile
from tests.unit.histories import epoch, events_of_every_schema, recorded

SUMMARY: dict[str, Any] = {"name": "one", "status": "failed", "fpr95": None, "seconds": {"train": 1.5}}
EPOCHS = recorded(
    *((0.0, epoch(n, n, loss=1.0 / n, fpr95=0.5 / n, accuracy=0.9)) for n in (1, 2, 3)), (0.0, epoch(4, 4))
)


def parsed(page: str) -> ElementTree.Element:
    """The page as XML; all that keeps it from being XML is the doctype, the meta tag and one entity."""
    page = page.removeprefix("<!doctype html>").replace('<meta charset="utf-8">', "").replace("&ndash;", "-")
    return ElementTree.fromstring(page)


def test_a_run_that_never_trained_has_a_report_without_curves() -> None:
    page = parsed(render_report(SUMMARY, []))
    assert page.findtext("body/h1") == "one: failed"
    assert page.findall("body/svg") == []
    figures = [[cell.text for cell in row] for row in page.findall("body/table")[0]]
    assert figures[1:] == [["name", "one"], ["status", "failed"], ["fpr95", "-"], ["seconds.train", "1.5"]]


def test_loss_and_fpr95_are_drawn_and_each_epoch_has_a_row() -> None:
    page = parsed(render_report(SUMMARY, EPOCHS))
    lines = page.findall("body/svg/polyline")
    assert [len(line.attrib["points"].split()) for line in lines] == [4, 3]
    rows = page.findall("body/table")[1]
    assert [row[0].text for row in rows] == ["epoch", "1", "2", "3", "4"]
    assert [cell.text for cell in rows[4]] == ["4", "4", "0.5", "0.1", "1.5", "-", "-"]


def test_events_are_shown_in_the_words_of_the_live_view_or_with_all_their_fields() -> None:
    history = recorded(
        (0.0, FailureDetected(kind="hang", rank=1, host="h", detail="d")),
        (1.0, UnknownEvent(event="from_the_future", fields={"wings": 2})),
        (2.0, Progress(step=1, steps=2)),
    )
    happened = parsed(render_report(SUMMARY, history)).findall("body/table")[2]
    assert [[cell.text for cell in row] for row in happened] == [
        ["time", "event"],
        ["1970-01-01 00:00:00 UTC", "failure: hang rank 1 on h: d"],
        ["1970-01-01 00:00:01 UTC", "from_the_future: wings 2"],
    ]


@given(st.text(st.characters(exclude_categories=("Cs", "Cc"))))
def test_what_a_failure_says_cannot_become_markup(detail: str) -> None:
    event = GivingUp(reason=f"<script>{detail}</script>")
    page = parsed(render_report(SUMMARY, recorded((0.0, event))))
    assert page.find(".//script") is None
    assert detail in "".join(page.itertext())


@given(st.lists(st.tuples(st.floats(0, 1e10), events_of_every_schema()), max_size=4))
def test_any_history_can_be_written_to_a_file(timed: list[tuple[float, Event]]) -> None:
    assert render_report(SUMMARY, recorded(*timed)).encode()


def job(storage: Path, recipe: str) -> tuple[JobSpec, RunDirectory]:
    spec = spec_from_dict(
        {"name": "one", "storage": str(storage), "train": {"recipe": recipe, "batch": 4}}, "test"
    )
    run = RunDirectory.of(spec.storage, spec.name)
    run.data.mkdir(parents=True)
    return spec, run


def test_the_views_of_training_pairs_are_drawn_into_the_page(tmp_path: Path) -> None:
    spec, run = job(tmp_path, "modern")
    assert gallery_of(spec, run) == ""  # there are no patches
    images = np.random.default_rng(0).integers(0, 256, (6, 96, 192), np.uint8)
    shifts = np.zeros((6, 2), np.int16)
    np.savez(run.train_npz, images, np.ones(6, np.int32), shifts=shifts)
    page = parsed(render_report(SUMMARY, EPOCHS, gallery_of(spec, run)))
    [image] = page.findall("body/img")
    png = base64.b64decode(image.attrib["src"].removeprefix("data:image/png;base64,"))
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture.shape == (4 * 68, 6 * 132)
    np.testing.assert_array_equal(picture[68:132, :128], middle(images[1:2])[0])  # the second of four rows
    seen = np.empty((4, 64, 128), np.uint8)
    rows = np.array([0, 1, 3, 5])
    Views(spec.train, PatchFile(run.train_npz, images, np.ones(6), shifts)).fill(Where(2, 0), rows, seen)
    np.testing.assert_array_equal(picture[68:132, 3 * 132 : 3 * 132 + 128], seen[1])


def test_a_recipe_without_views_has_no_gallery(tmp_path: Path) -> None:
    spec, run = job(tmp_path, "demo")
    np.savez(run.train_npz, np.zeros((6, 64, 128), np.uint8), np.ones(6, np.int32))
    assert gallery_of(spec, run) == ""


def test_patches_that_cannot_be_drawn_are_a_sentence_in_the_page(tmp_path: Path) -> None:
    spec, run = job(tmp_path, "modern")
    run.train_npz.write_bytes(b"<no patches>")
    [_, said] = parsed(f"<p>{gallery_of(spec, run)}</p>")
    assert (
        said.text is not None and said.text.startswith("They cannot be drawn: ") and "train.npz" in said.text
    )
