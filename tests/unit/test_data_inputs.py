"""A job and its data: what plan and launch say before anything starts; which data a run accepts."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from orchestrator.engine.checkpoints import Encoded, write_checkpoint
from orchestrator.job.inputs import (
    check_inputs,
    data_identity,
    refuse_changed_since_checkpoint,
    refuse_changed_since_finished,
    refuse_other_data,
    source_of,
    supply_of,
    work_of,
)
from orchestrator.job.launch import launch, preprocess_only
from orchestrator.job.plan import build_plan, plan_as_dict
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import ClusterSpec, JobSpec, spec_from_dict
from sdnet.config import SyntheticConfig
from sdnet.data.checksums import checksums_of
from sdnet.errors import InputError
from sdnet.preparation.prepare import prepare
from sdnet.preparation.synthetic import make_tree
from tests.unit.sdnet_checkpoints import save

Make = Callable[..., JobSpec]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a job with this `data` section."""

    def job(**data: object) -> JobSpec:
        raw = {"name": "job", "storage": str(tmp_path / "runs"), "train": {"recipe": "demo"}, "data": data}
        return spec_from_dict(raw, "test")

    return job


@pytest.fixture
def images(tmp_path: Path) -> Path:
    make_tree(tmp_path / "images", SyntheticConfig(pairs=24, scenes=6))
    return tmp_path / "images"


def patches(folder: Path, train_labels: list[int], test_labels: list[int]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, labels in (("train.npz", train_labels), ("test.npz", test_labels)):
        np.savez(folder / name, np.zeros((len(labels), 64, 128), np.uint8), np.array(labels))
    return folder


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


def test_a_job_without_images_says_that_its_pairs_are_synthetic(make):
    plan = plan_as_dict(build_plan(make()))
    assert plan["notes"] == [
        "neither data.images nor data.prepared is given, so the job trains on synthetic pairs"
    ]
    assert source_of(make().data) == "synthetic pairs (seed 0)"


def test_ascend_keys_that_a_job_on_cpus_does_not_use_are_named(make, images):
    hosts = ({"address": "10.0.0.1", "devices": {0: "192.168.1.8"}},)
    note = "cluster.device is cpu, so {} no effect: the ranks compute on CPUs"
    for cluster, keys in (
        ({"hosts": hosts}, "cluster.hosts has"),
        ({"hosts": hosts, "collective": "mccl"}, "cluster.hosts and cluster.collective have"),
    ):
        spec = make(images=str(images))
        spec = spec.model_copy(update={"cluster": ClusterSpec.model_validate(cluster)})
        assert build_plan(spec).notes == (note.format(keys),)


@pytest.mark.parametrize(
    ("data", "note"),
    [
        ({"prepared": "here"}, ""),
        ({"prepared": "here", "patches": {"per_pair": 3}, "synthetic": {"seed": 0}}, ""),
        (
            {"prepared": "here", "patches": {"per_pair": 4}, "split": {"seed": 1}, "max_bad_images": 0.5},
            "data.prepared gives patches that are cut already, so data.patches and data.split and "
            "data.max_bad_images have no effect",
        ),
        ({"images": "there", "synthetic": {"seed": 1}}, "data.images gives images, so data.synthetic has no effect"),
        (
            {"images": "there", "split": {"train": 0.5, "train_scenes": ["*_[0-2]"], "test_scenes": ["*_[3-5]"]}},
            "train_scenes and test_scenes choose the scenes, so data.split.train has no effect",
        ),
    ],
)  # fmt: skip
def test_data_keys_that_the_source_of_the_data_does_not_use_are_named(make, images, tmp_path, data, note):
    places = {"here": str(patches(tmp_path / "made", [1] * 64, [1, 0])), "there": str(images)}
    plan = build_plan(make(**{key: places.get(str(value), value) for key, value in data.items()}))
    assert plan.notes == ((note,) if note else ())


def test_a_job_with_images_names_them_and_has_no_note(make, images):
    spec = make(images=str(images))
    assert plan_as_dict(build_plan(spec))["notes"] == []
    assert source_of(spec.data) == str(images)


def test_plan_reports_orphans_and_scenes_left_out_and_launch_works_on_the_same_shards(make, images):
    sorted(images.glob("*/s1_0/*.png"))[0].unlink()
    split = {"train_scenes": ["*_0", "*_1"], "test_scenes": ["*_2", "*_3"]}
    spec = make(images=str(images), split=split, max_bad_images=0.1)
    plan = build_plan(spec)
    assert [note.partition(" and are")[0] for note in plan.notes] == [
        "1 image(s) have no partner", "2 scene(s) match neither train_scenes nor test_scenes",
    ]  # fmt: skip
    assert plan.shards == len(work_of(spec.data, images, run_of(spec)).shards) == 2


def test_plan_and_launch_refuse_too_many_orphans(make, images):
    for path in list(images.glob("*/s1_0/*.png"))[:2]:
        path.unlink()
    for refuse in (build_plan, launch):
        with pytest.raises(InputError, match=r"2 bad images for 22 pairs, above data\.max_bad_images 0\.01"):
            refuse(make(images=str(images)))


def test_the_supply_of_synthetic_pairs_is_that_of_the_tree_they_make(make, images):
    described = {"synthetic": {"pairs": 24, "scenes": 6}}
    made, given = supply_of(make(**described).data), supply_of(make(images=str(images)).data)
    assert (made.pairs, made.shards, made.train, made.test) == (
        given.pairs, given.shards, given.train, given.test,
    )  # fmt: skip


@pytest.mark.parametrize("train, test, said", [
    ([1, 0, 1], [0, 1], r"train\.npz holds 1 non-matches \(label 0\) among 3 pairs"),
    ([1, 2, 2], [0, 1], r"train\.npz: 2 of 3 labels in arr_1 are neither 1 \(match\) nor 0"),
    ([1, 1, 1], [0, -1], r"test\.npz: 1 of 2 labels in arr_1 are neither 1 \(match\) nor 0"),
    ([1, 1, 1], [1, 1], r"test\.npz: of 2 pairs \d are matches; FPR95 needs matches and non-matches"),
    ([1, 1, 1], [0, 0], r"test\.npz: of 2 pairs \d are matches; FPR95 needs matches and non-matches"),
])  # fmt: skip
def test_labels_that_would_train_or_measure_something_else_are_refused(make, tmp_path, train, test, said):
    folder = patches(tmp_path / "patches", train, test)
    for refuse in (build_plan, launch, check_inputs):
        with pytest.raises(InputError, match=said):
            refuse(make(prepared=str(folder)))


@pytest.mark.parametrize(
    "data, key",
    [
        ({"layout": "flat"}, "layout is 'flat'"),
        ({"split": {"scene_pattern": "(.)"}}, "split has a scene_pattern"),
    ],
)
def test_keys_that_describe_images_are_refused_without_images(make, tmp_path, data, key):
    folder = str(patches(tmp_path / "patches", [1], [0, 1]))
    for source in ({}, {"prepared": folder}):
        with pytest.raises(InputError, match=rf"data\.{key}, which describes images, and there are none"):
            make(**data, **source)


@pytest.mark.parametrize(
    "data, said",
    [
        ({"layout": "sen13"}, r"data\.layout is \"sen13\"; it must be 'auto', 'sen12'"),
        ({"max_pixels": 0}, r"data\.max_pixels is 0; it must be at least 1"),
        ({"max_pixels": 1e9}, r"data\.max_pixels"),
        ({"split": {"scene_pattern": "a"}}, r'scene_pattern is "a"; it must be a regular expression'),
        ({"split": {"scene_pattern": 7}}, r"data\.split\.scene_pattern is 7; it must be text"),
    ],
)
def test_new_keys_are_checked_as_the_others(make, data, said):
    with pytest.raises(InputError, match=said):
        make(images="somewhere", **data)


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
