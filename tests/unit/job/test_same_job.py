"""A run's checkpoints are used by the job that made them, and by no other."""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import yaml

from orchestrator.engine.checkpoints import write_checkpoint
from orchestrator.engine.state_format import NpzFormat
from orchestrator.job.checkpoints import refuse_another_job
from orchestrator.job.data.inputs import work_of
from orchestrator.job.launch import launch
from orchestrator.job.plan import build_plan
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import JobSpec, spec_from_dict
from sdnet.config import SyntheticConfig
from sdnet.data.checksums import checksums_of
from sdnet.errors import InputError
from sdnet.preparation import shards
from sdnet.preparation.prepare import prepare
from sdnet.preparation.synthetic import make_tree
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
        ({"data": {"images": "/elsewhere", "synthetic": {"seed": 1}}}, "not \"/elsewhere\""),
    ],
)  # fmt: skip
def test_another_job_is_refused_with_what_differs(make, run, sections, said):
    found = refusal(make(**sections), run)
    assert found.startswith("RUN contains a job with ") and said in found


def test_a_plan_says_what_a_launch_would_do_with_the_run_that_is_there(make, run, tmp_path, monkeypatch):
    make_tree(tmp_path / "images", SyntheticConfig(pairs=6, scenes=3))
    prepare(work_of(make().data, tmp_path / "images", run))
    assert build_plan(make()).notes[-1] == f"{run.root} is finished, so a launch does nothing"
    other = make(train={"lr": 0.001})
    assert refusal(other, run).replace("RUN", str(run.root)) in build_plan(other).problem
    first, second, *_ = sorted((tmp_path / "images").glob("*/s1_*/*.png"))
    first.write_bytes(second.read_bytes())
    assert "changed after" in build_plan(make()).problem
    run.job.write_text("[")
    assert f"{run.job} cannot be read" in build_plan(make()).problem
    monkeypatch.setattr("os.access", lambda path, mode: path != run.root)
    assert f"storage {run.root} cannot be written (Permission denied)" in build_plan(make()).problem


def emptied(run: RunDirectory) -> None:
    for path in run.checkpoints.glob("*/*"):
        path.write_bytes(b"")


def in_the_way(run: RunDirectory) -> None:
    shutil.rmtree(run.checkpoints)
    run.checkpoints.write_text("")


def leading_nowhere(run: RunDirectory) -> None:
    shutil.rmtree(run.checkpoints)
    run.checkpoints.symlink_to(run.root / "unmounted")


@pytest.mark.parametrize(
    ("lose", "said"),
    [
        (lambda run: shutil.rmtree(run.checkpoints), r"the run has finished, but .* \(all are gone\); put one back"),
        (emptied, r"the run has finished, but .* \(corrupt: step_00000009\); put one back"),
        (in_the_way, r"checkpoints cannot be written \(File exists\); make it yours"),
        (leading_nowhere, r"checkpoints cannot be written \(it is a link to .*, which is not there\); make"),
    ],
)  # fmt: skip
def test_a_plan_refuses_a_finished_run_without_checkpoints_as_launch_does_and_marks_nothing(
    make, run, tmp_path, lose, said
):
    make_tree(tmp_path / "images", SyntheticConfig(pairs=6, scenes=3))
    lose(run)
    before = sorted(tmp_path.rglob("*"))
    plan = build_plan(make())
    assert sorted(tmp_path.rglob("*")) == before
    assert re.search(said, plan.problem) and not any("is finished" in note for note in plan.notes)
    with pytest.raises(InputError) as caught:
        launch(make())
    assert str(caught.value) == plan.problem


def test_a_plan_of_a_finished_run_without_its_last_checkpoint_says_that_it_trains_again(
    make, run, tmp_path, caplog
):
    make_tree(tmp_path / "images", SyntheticConfig(pairs=6, scenes=3))
    save(run.checkpoints, 5, recipe=asdict(make().train))
    shutil.rmtree(run.checkpoints / "step_00000009")
    plan = build_plan(make())
    assert "it trains again from step_00000005" in caplog.text
    assert plan.stages[0].work.startswith("6 pairs of ") and not any(
        "is finished" in note for note in plan.notes
    )


def test_a_finished_run_needs_neither_its_images_nor_its_cluster(make, run, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 0)
    plan = build_plan(make())
    assert launch(make()).already_done
    assert plan.notes == (f"{run.root} is finished, so a launch does nothing",)
    assert (plan.problem, plan.warning) == ("", "")
    assert {stage.work for stage in plan.stages} == {"nothing: the run is finished"}


@pytest.mark.parametrize(
    ("sections", "said"),
    [({"train": {"lr": 0.001}}, "lr 0.004, not 0.001"), ({"cluster": {"workers": 2}}, "ranks 1, not 2")],
)
def test_without_job_yaml_the_checkpoints_say_what_they_were_trained_with(make, run, sections, said):
    run.job.unlink()
    assert launch(make()).already_done
    assert refusal(make(**sections), run) == f"the checkpoints of RUN were trained with {said}"


def test_checkpoints_of_another_training_function_are_refused(make, run):
    run.job.unlink()
    write_checkpoint(run.storage, NpzFormat().encode({"a": np.zeros(2)}, 10, {}))
    assert refusal(make(), run) == "the checkpoints of RUN are of another training function"


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


def test_keys_of_a_source_that_the_job_does_not_use_may_change(make, run, tmp_path):
    images = str(tmp_path / "images")
    refuse_another_job(make(data={"images": images, "synthetic": {"pairs": 60}}), run)
    found = refusal(make(data={"images": images, "split": {"seed": 1}, "synthetic": {"pairs": 60}}), run)
    assert found == "RUN contains a job with data.split.seed 0, not 1"


def test_another_source_is_named_without_the_keys_of_synthetic_pairs(make, run):
    assert refusal(make(data={}), run).count(",") == 1  # one difference: images are given or not


def test_the_same_images_in_another_folder_are_the_same_data(make, run, tmp_path):
    make_tree(tmp_path / "images", SyntheticConfig(pairs=6, scenes=3))
    prepare(work_of(make().data, tmp_path / "images", run))
    (tmp_path / "images").rename(tmp_path / "moved")
    moved = make(data={"images": str(tmp_path / "moved")})
    refuse_another_job(moved, run)
    assert launch(moved).already_done
    other = make(data={"images": str(tmp_path / "moved"), "split": {"seed": 1}})
    assert "data.split.seed 0, not 1" in refusal(other, run)


def test_copies_of_the_images_with_new_times_are_the_same_data_and_no_patch_is_cut_again(
    make, run, tmp_path, monkeypatch
):
    make_tree(tmp_path / "images", SyntheticConfig(pairs=6, scenes=3))
    prepare(work_of(make().data, tmp_path / "images", run))
    for path in shutil.copytree(tmp_path / "images", tmp_path / "copied").rglob("*.png"):
        os.utime(path, (1, 1))
    copied = make(data={"images": str(tmp_path / "copied")})
    with monkeypatch.context() as patched:
        patched.setattr(shards, "make_shard", None)
        refuse_another_job(copied, run)
    first, second, *_ = sorted((tmp_path / "copied").glob("*/s1_*/*.png"))
    first.write_bytes(second.read_bytes())
    assert refusal(copied, run).startswith("RUN contains a job with data.images ")


def test_the_same_patches_in_another_folder_are_the_same_data(make, tmp_path):
    before, moved = make(data={"prepared": str(tmp_path / "a")}), make(data={"prepared": str(tmp_path / "b")})
    run = RunDirectory.of(before.storage, before.name)
    run.create()
    run.job.write_text(yaml.safe_dump(before.values()))
    (tmp_path / "b").mkdir()
    for name in ("train.npz", "test.npz"):
        np.savez(tmp_path / "b" / name, np.zeros((2, 64, 128), np.uint8), np.array([1, 0]))
    files = (tmp_path / "b" / "train.npz", tmp_path / "b" / "test.npz")
    save(run.checkpoints, 9, recipe=asdict(before.train), data=checksums_of(*files))
    refuse_another_job(moved, run)
    np.savez(files[0], np.ones((2, 64, 128), np.uint8), np.array([1, 0]))
    assert refusal(moved, run).startswith("RUN contains a job with data.prepared ")
    files[0].unlink()
    assert refusal(moved, run).startswith("RUN contains a job with data.prepared ")
