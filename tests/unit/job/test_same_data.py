"""Which data a run accepts: those it was trained with."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from orchestrator.engine.checkpoints import Encoded, write_checkpoint
from orchestrator.job.data.inputs import work_of
from orchestrator.job.data.same_data import (
    data_identity,
    refuse_changed_since_checkpoint,
    refuse_changed_since_finished,
    refuse_other_data,
)
from orchestrator.job.launch import launch, preprocess_only
from orchestrator.job.plan import build_plan
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import JobSpec, spec_from_dict
from sdnet.data.checksums import checksums_of
from sdnet.errors import InputError
from sdnet.preparation.prepare import prepare
from tests.unit.job.patch_files import patches
from tests.unit.sdnet_checkpoints import save


def run_of(spec: JobSpec) -> RunDirectory:
    run = RunDirectory.of(spec.storage, spec.name)
    run.create()
    return run


def keep_checkpoint(run: RunDirectory, data: dict[str, str] | None, step: int = 9) -> None:
    """A checkpoint, as far as its state names its data; None for one of an older version."""
    fields = {"step": step} if data is None else {"step": step, "data": data}
    write_checkpoint(run.storage, Encoded({}, fields))


def finish(run: RunDirectory, train: Path, test: Path) -> None:
    checkpoint = save(run.checkpoints, 9, data=checksums_of(train, test))
    run.summary.write_text(json.dumps({"status": "succeeded", "name": "job", "checkpoint": checkpoint.name}))


def test_checkpoints_go_with_the_files_they_were_trained_with_and_no_other(make, tmp_path):
    run, folder = run_of(make()), patches(tmp_path / "patches", [1, 1], [0, 1])
    train, test = folder / "train.npz", folder / "test.npz"
    refuse_other_data(run, train, test)
    keep_checkpoint(run, None, step=8)
    refuse_other_data(run, train, test)
    keep_checkpoint(run, checksums_of(train, test))
    refuse_other_data(run, train, test)
    patches(folder, [1, 1], [0, 1, 1])
    with pytest.raises(
        InputError, match=r"were trained with another test\.npz \(checksum \w{12}, now \w{12}\)"
    ):
        refuse_other_data(run, train, test)
    patches(folder, [1, 1, 1], [0, 1])
    with pytest.raises(InputError, match=r"were trained with another train\.npz \(checksum .*; put the data"):
        refuse_other_data(run, train, test)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"data": 3}', '{"data": [1]}', "null"])
def test_a_checkpoint_that_cannot_be_read_is_passed_over_for_the_one_before(make, tmp_path, content):
    run, folder = run_of(make()), patches(tmp_path / "patches", [1], [0, 1])
    keep_checkpoint(run, {"train.npz": "other"}, step=8)
    keep_checkpoint(run, None, step=100_000_000)
    (run.checkpoints / "step_100000000/state.json").write_text(content)
    with pytest.raises(InputError, match="were trained with another"):
        refuse_other_data(run, folder / "train.npz", folder / "test.npz")


def test_prepared_data_swapped_under_a_run_are_refused_before_anything_starts(make, tmp_path):
    folder = patches(tmp_path / "patches", [1] * 60, [0, 1])
    spec = make(prepared=str(folder))
    run = run_of(spec)
    run.job.write_text(json.dumps(spec.values()))
    save(run.checkpoints, 9, data=checksums_of(folder / "train.npz", folder / "test.npz"))
    patches(folder, [1] * 61, [0, 1])
    before = run.job.read_bytes()
    with pytest.raises(InputError, match=r"trained with another train\.npz .*give the job another `name`"):
        launch(spec)
    assert run.job.read_bytes() == before and not run.summary.exists() and not run.events.exists()


@pytest.mark.parametrize("which", ["train.npz", "test.npz"])
@pytest.mark.parametrize("where", ["of the run", "of the job"])
def test_a_finished_run_whose_data_were_swapped_is_no_result_of_them(make, tmp_path, which, where):
    folder = patches(tmp_path / "patches", [1] * 60, [0, 1])
    spec = make(prepared=str(folder))
    run = run_of(spec)
    for name in ("train.npz", "test.npz"):
        shutil.copyfile(folder / name, run.data / name)
    finish(run, folder / "train.npz", folder / "test.npz")
    assert launch(spec).already_done
    swapped = (run.data if where == "of the run" else folder) / which
    np.savez(swapped, np.ones((60, 64, 128), np.uint8), np.ones(60, int))
    with pytest.raises(InputError, match=rf"trained with another {which}"):
        launch(spec)
    swapped.unlink()
    assert launch(spec).already_done


def test_a_finished_run_is_no_result_of_images_that_were_changed_later(make, images, caplog):
    spec = make(images=str(images))
    run = run_of(spec)
    prepare(work_of(spec.data, images, run))
    finish(run, run.train_npz, run.test_npz)
    assert launch(spec).already_done
    changed = next(images.glob("*/s1_0/*.png"))
    shutil.copyfile(next(images.glob("*/s1_1/*.png")), changed)
    with pytest.raises(InputError, match=r"images .* changed after .* was finished; put them back"):
        refuse_changed_since_finished(spec, run)
    assert not caplog.messages
    shutil.rmtree(run.data / "shards")
    refuse_changed_since_finished(spec, run)
    [warning] = caplog.messages
    assert warning.startswith(
        f"images {images} were not compared with those that {run.root} was trained with"
    )
    shutil.rmtree(images)
    assert launch(spec).already_done
    images.mkdir()
    assert launch(spec).already_done


@pytest.mark.parametrize("begin", [launch, preprocess_only])
def test_images_changed_under_a_stopped_run_are_refused_before_its_data_are_replaced(make, images, begin):
    spec = make(images=str(images), patches={"per_pair": 6})
    run = run_of(spec)
    prepare(work_of(spec.data, images, run))
    keep_checkpoint(run, checksums_of(run.train_npz, run.test_npz))
    assert not build_plan(spec).problem
    before = {path: path.read_bytes() for path in run.data.rglob("*.*")}
    shutil.copyfile(next(images.glob("*/s1_1/*.png")), next(images.glob("*/s1_0/*.png")))
    said = rf"images .* changed after {run.root} saved its checkpoints; put them back"
    with pytest.raises(InputError, match=said):
        begin(spec)
    assert re.match(said, build_plan(spec).problem) and not run.job.exists()
    assert {path: path.read_bytes() for path in run.data.rglob("*.*")} == before


def test_pairs_of_scenes_that_the_job_does_not_use_may_be_added_to_a_stopped_run(make, images):
    split = {"train_scenes": ["*_0", "*_1"], "test_scenes": ["*_2", "*_3"]}
    spec = make(images=str(images), split=split)
    run = run_of(spec)
    prepare(work_of(spec.data, images, run))
    keep_checkpoint(run, checksums_of(run.train_npz, run.test_npz))
    for sensor in ("s1", "s2"):
        [folder] = images.glob(f"*/{sensor}_5")
        first = min(folder.glob("*.png"))
        shutil.copyfile(first, folder / first.name.replace("_p", "_p9"))
    refuse_changed_since_checkpoint(spec, run)


def test_a_job_of_an_older_version_is_the_same_job(make):
    now = make().model_dump(mode="json")["data"]
    before = json.loads(json.dumps(now))
    for key in ("layout", "max_pixels"):
        del before[key]
    del before["split"]["scene_pattern"]
    assert data_identity(before) == data_identity(now)
    other = {**now, "split": {**now["split"], "scene_pattern": "(.)"}}
    assert data_identity(other) != data_identity(now)


def test_job_yaml_has_the_paths_that_the_launch_used(make, tmp_path, monkeypatch):
    patches(tmp_path / "first", [1] * 50, [0, 1])
    (tmp_path / "current").symlink_to("first")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("orchestrator.job.launch.ray_session", lambda cluster: 1 / 0)
    spec = make(prepared="current").model_copy(update={"storage": "runs"})
    with pytest.raises(ZeroDivisionError):
        launch(spec)
    job = spec_from_dict(yaml.safe_load((tmp_path / "runs" / spec.name / "job.yaml").read_text()), "job.yaml")
    assert (job.storage, job.data.prepared) == (f"{tmp_path}/runs", f"{tmp_path}/first")
