"""A job and its data: what plan and launch say before anything starts."""

import numpy as np
import pytest

from orchestrator.job.data.inputs import check_inputs, source_of, supply_of, work_of
from orchestrator.job.launch import launch
from orchestrator.job.plan import build_plan, plan_as_dict
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import ClusterSpec
from sdnet.errors import InputError
from tests.unit.job.patch_files import patches


@pytest.mark.parametrize(("step_timeout_s", "seconds"), [("auto", "1800"), (20, "1800"), (4000.5, "4001")])
def test_mindspore_never_gives_up_on_a_late_rank_before_the_watchdog_does(make, step_timeout_s, seconds):
    recovery = make().recovery.model_copy(update={"step_timeout_s": step_timeout_s})
    plan = build_plan(make().model_copy(update={"recovery": recovery, "cluster": ClusterSpec(workers=2)}))
    assert {rank.environment["MS_CPU_COMM_OP_TIMEOUT"] for rank in plan.ranks} == {seconds}


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
    assert (
        plan.shards == len(work_of(spec.data, images, RunDirectory.of(spec.storage, spec.name)).shards) == 2
    )


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


@pytest.mark.parametrize("name", ["train.npz", "test.npz"])
def test_a_file_of_pairs_with_equal_halves_is_refused_before_there_is_a_run(make, tmp_path, name):
    spec = make(prepared=str(patches(tmp_path / "patches", [1, 1], [0, 1])))
    for equal in (1, 2):
        images = np.tile(np.arange(128, dtype=np.uint8), (2, 64, 1))
        images[:equal] = 7
        labels = [1, 1] if name == "train.npz" else [0, 1]
        np.savez(tmp_path / "patches" / name, images, np.array(labels))
        if equal == 1:
            assert supply_of(spec.data).train == 2
    for refuse in (build_plan, launch, check_inputs):
        with pytest.raises(
            InputError, match=rf"{name}: the two halves of all 2 pairs are equal; put optical"
        ):
            refuse(spec)
    assert not (tmp_path / "runs").exists()


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
