"""A plan reports the shift of SAR against optical in the training scenes, once it is known."""

import json
from pathlib import Path

import pytest

from orchestrator.job.data.inputs import images_folder, work_of
from orchestrator.job.plan import build_plan
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import JobSpec, spec_from_dict
from sdnet.config import SyntheticConfig
from sdnet.errors import InputError
from sdnet.preparation.prepare import prepare
from sdnet.preparation.synthetic import make_tree

FOUND = {
    "scenes": {"a": [3, 0], "b": [0, 1]},
    "not_trusted": {"c": "its two halves find shifts that are 5.0 px apart"},
    "median_px": 2.0,
    "largest_px": 3.0,
    "misregistered": ["p7"],
}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    make_tree(tmp_path / "images", SyntheticConfig(pairs=24, scenes=6))
    return tmp_path / "images"


def job(tmp_path: Path, recipe: str, **data: object) -> JobSpec:
    raw = {"name": "job", "storage": str(tmp_path / "runs"), "data": data}
    return spec_from_dict({**raw, "train": {"recipe": recipe, "batch": 10}}, "test")


def preprocess_of(spec: JobSpec) -> str:
    return build_plan(spec).stages[0].work


def test_a_plan_says_that_shifts_are_estimated_and_then_what_they_are(tmp_path, images):
    spec = job(tmp_path, "modern", images=str(images))
    assert preprocess_of(spec).endswith("; one shift a training scene is estimated")
    run = RunDirectory.of(spec.storage, spec.name)
    run.create()
    found = prepare(work_of(spec.data, images_folder(str(images)), run))["alignment"]
    trusted, others = len(found["scenes"]), len(found["not_trusted"])
    assert trusted + others == 4  # training scenes
    assert f"; shifts of scenes: {trusted} of 4 trusted" in preprocess_of(spec)
    run.manifest.write_text(json.dumps({"alignment": FOUND}))
    said = "; shifts of scenes: 2 of 3 trusted, median 2.0 px, largest 3.0 px; 1 misregistered pair(s)"
    assert preprocess_of(spec).endswith(said)


def test_a_recipe_that_does_not_align_has_no_line_about_shifts(tmp_path, images):
    assert "shift" not in preprocess_of(job(tmp_path, "sen1_2", images=str(images)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", r"manifest\.json cannot be read"),
        (json.dumps({"alignment": {"scenes": 3}}), r"manifest\.json does not describe shifts of scenes"),
    ],
)
def test_an_invalid_manifest_is_refused(tmp_path, images, content, said):
    spec = job(tmp_path, "modern", images=str(images))
    run = RunDirectory.of(spec.storage, spec.name)
    run.create()
    run.data.mkdir(exist_ok=True)
    run.manifest.write_text(content)
    with pytest.raises(InputError, match=said):
        build_plan(spec)
