"""A run's checkpoints are used by the job that made them, and by no other."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from orchestrator.job.checkpoints import refuse_another_job
from orchestrator.job.launch import launch
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import JobSpec, spec_from_dict
from sdnet.errors import InputError
from tests.unit.sdnet_checkpoints import save

Make = Callable[..., JobSpec]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def job(**sections: object) -> JobSpec:
        raw = {"name": "job", "storage": str(tmp_path / "runs"), "data": {"images": str(tmp_path / "images")}}
        return spec_from_dict(raw | sections, "test")

    return job


@pytest.fixture
def run(make: Make) -> RunDirectory:
    """A finished run of `make()`."""
    spec = make()
    run = RunDirectory.of(spec.storage, spec.name)
    run.create()
    run.job.write_text(yaml.safe_dump(spec.values()))
    saved = save(run.checkpoints, 9, recipe=asdict(spec.train))
    run.summary.write_text(json.dumps({"status": "succeeded", "name": "job", "checkpoint": saved.name}))
    return run


def refusal(spec: JobSpec, run: RunDirectory) -> str:
    with pytest.raises(InputError) as caught:
        refuse_another_job(spec, run)
    said = str(caught.value)
    assert said.endswith("; give the job another `name`, or launch with --restart to begin again")
    return said.partition(";")[0].replace(str(run.root), "RUN")


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"train": {"lr": 0.001}}, "train.lr 0.004, not 0.001"),
        ({"cluster": {"workers": 2, "threads": 3}}, "cluster.workers 1, not 2, cluster.threads 1, not 3"),
        ({"train": {"epochs": 2, "batch": 8, "lr": 0.1, "seed": 1}}, "and 1 more"),
        ({"data": {}}, ', not nothing'),
    ],
)  # fmt: skip
def test_another_job_is_refused_with_what_differs(make, run, sections, said):
    found = refusal(make(**sections), run)
    assert found.startswith("RUN contains a job with ") and said in found


@pytest.mark.parametrize(
    ("sections", "said"),
    [({"train": {"lr": 0.001}}, "lr 0.004, not 0.001"), ({"cluster": {"workers": 2}}, "ranks 1, not 2")],
)
def test_without_job_yaml_the_checkpoints_say_what_they_were_trained_with(make, run, sections, said):
    run.job.unlink()
    assert launch(make()).already_done
    assert refusal(make(**sections), run) == f"the checkpoints of RUN were trained with {said}"


def test_checkpoints_of_another_run_do_not_make_this_one_finished(make, run):
    save(run.checkpoints, 10, recipe={**asdict(make().train), "seed": 5})
    assert refusal(make(), run) == "the checkpoints of RUN were trained with seed 5, not 0"


def test_a_checkpoint_of_an_older_version_was_trained_with_the_defaults_of_newer_keys(make, run):
    recipe = asdict(make().train)
    del recipe["average"]
    save(run.checkpoints, 10, recipe=recipe)
    refuse_another_job(make(), run)


@pytest.mark.parametrize("spelled", ["images/", "./images", "x/../images", "link"])
def test_the_same_folder_is_the_same_data_however_it_is_written(make, run, tmp_path, monkeypatch, spelled):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "link").symlink_to("images")
    refuse_another_job(make(data={"images": spelled}), run)
