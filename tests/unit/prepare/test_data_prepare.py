"""Preprocessing in one process: what is made, what is kept, and what is made again."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdnet.config import PatchConfig, SplitConfig
from sdnet.data.store import open_patches
from sdnet.errors import InputError
from sdnet.preparation.prepare import draw_negatives, prepare
from sdnet.preparation.work import images_changed, plan_work
from tests.unit.prepare.prepared import PATCHES, RESULTS, SPLIT, again, images_of, results


def test_train_holds_matches_only_and_test_its_matches_and_then_non_matches(made):
    manifest = json.loads((made / "out/manifest.json").read_text(encoding="utf-8"))
    train, test = open_patches(made / "out/train.npz"), open_patches(made / "out/test.npz")
    assert manifest["patches"] == {"train": 18 * 4, "test": 18 * 4 + 18 * 6}
    assert (len(train), len(test)) == (72, 180) and train.labels.all()
    assert test.labels.tolist() == [1] * 72 + [0] * 108
    assert set(manifest["scenes"]["train"]).isdisjoint(manifest["scenes"]["test"])
    assert manifest["pairs"] == 36 and manifest["skipped"] == []


def test_a_non_match_is_half_of_one_match_and_half_of_one_of_another_scene(made):
    images = open_patches(made / "out/test.npz").images
    lefts = {image[:, :64].tobytes(): number for number, image in enumerate(images[:72])}
    rights = {image[:, 64:].tobytes(): number for number, image in enumerate(images[:72])}
    pairs = [(lefts[image[:, :64].tobytes()], rights[image[:, 64:].tobytes()]) for image in images[72:]]
    assert all(left // 24 != right // 24 for left, right in pairs)  # 6 pairs of 4 patches a scene


@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=8),
    negatives=st.floats(0.01, 5),
    seed=st.integers(0, 5),
)
def test_every_match_gives_its_optical_patch_floor_or_ceil_times(sizes, negatives, seed):
    scenes = np.repeat(np.arange(len(sizes)), sizes)
    optical, sar = draw_negatives(scenes, negatives, seed)
    number = round(negatives * len(scenes))
    counts = np.bincount(optical, minlength=len(scenes))
    assert len(optical) == len(sar) == number
    assert set(counts) <= {number // len(scenes), -(-number // len(scenes))}
    assert (scenes[optical] != scenes[sar]).all()
    np.testing.assert_array_equal(sar, draw_negatives(scenes, negatives, seed)[1])


def test_the_same_images_make_the_same_bytes_elsewhere(made, copy):
    shutil.rmtree(copy / "out")
    (copy / "out").mkdir()
    again(copy)
    assert results(copy) == results(made)


def test_a_finished_result_is_left_as_it_is(copy, shards_made):
    before = {path: path.stat().st_mtime_ns for path in (copy / "out").rglob("*")}
    again(copy)
    assert shards_made == []
    assert {path: path.stat().st_mtime_ns for path in (copy / "out").rglob("*")} == before


@pytest.mark.parametrize("name", RESULTS)
def test_a_damaged_result_is_merged_again_from_the_shards(copy, shards_made, name):
    expected = results(copy)
    path = copy / "out" / name
    path.write_bytes(path.read_bytes()[:-100])
    again(copy)
    assert results(copy) == expected and shards_made == []


@pytest.mark.parametrize("damage", ["cut the patches", "cut the report", "remove the report", "flip a bit"])
def test_a_damaged_shard_is_made_again_and_no_other(copy, shards_made, damage):
    expected, shards = results(copy), copy / "out/shards"
    patches, report = shards / "train-00001.npz", shards / "train-00001.json"
    if damage == "cut the patches":
        patches.write_bytes(patches.read_bytes()[:-1])
    elif damage == "cut the report":
        report.write_bytes(report.read_bytes()[:-1])
    elif damage == "remove the report":
        report.unlink()
    else:
        data = bytearray(patches.read_bytes())
        data[1000] ^= 1
        patches.write_bytes(data)
    again(copy)
    assert shards_made == ["train-00001"] and results(copy) == expected


def test_other_settings_make_every_shard_again(copy, shards_made):
    again(copy, PatchConfig(per_pair=2))
    assert len(shards_made) == 6 and len(open_patches(copy / "out/train.npz")) == 36


def test_another_number_of_non_matches_needs_no_shard_again(copy, shards_made):
    again(copy, replace(PATCHES, negatives=0.5))
    assert shards_made == [] and len(open_patches(copy / "out/test.npz")) == 72 + 36


def test_a_distance_of_16_and_of_16_0_are_one_setting(copy, shards_made):
    again(copy, replace(PATCHES, min_distance_px=int(PATCHES.min_distance_px)))
    assert shards_made == []


def test_an_image_that_changed_makes_its_shard_again(copy, shards_made):
    first, second = images_of(copy, "s1")[:2]
    shutil.copyfile(second, first)
    again(copy)
    assert len(shards_made) == 1


def test_what_killed_processes_left_is_swept_away(copy):
    for name in ("out/.train.npz.0123456789ab", "out/shards/.train-00000.npz.0123456789ab"):
        (copy / name).write_bytes(b"half")
    again(copy)
    assert not list((copy / "out").rglob(".*"))


def test_a_single_test_scene_is_refused_before_any_work(made, tmp_path, shards_made):
    split = SplitConfig(train_scenes=("*_1", "*_2"), test_scenes=("*_3",))
    with pytest.raises(InputError, match=r"only test scene is ROIs0000_synthetic_3; .* at least 2"):
        plan_work(made / "images", tmp_path, PATCHES, split, 0.0)
    assert shards_made == [] and not list(tmp_path.iterdir())


def test_shards_do_not_depend_on_anything_but_the_pairs(made, tmp_path):
    work = plan_work(made / "images", tmp_path, PATCHES, SPLIT, 0.0)
    assert [len(shard.pairs) for shard in work.train] == [8, 8, 2]
    assert [shard.name for shard in work.shards][-1] == "test-00002"


def test_a_worker_that_makes_shards_loads_neither_mindspore_nor_ray():
    code = "import sys, sdnet.preparation.shards; print({'mindspore', 'ray'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_patches_that_this_program_did_not_make_are_never_replaced(copy):
    shutil.rmtree(copy / "out/shards")
    (copy / "out/manifest.json").unlink()
    (copy / "out/train.npz").unlink()
    with pytest.raises(
        InputError, match=r"test\.npz is there and was not made by this program; move it away"
    ):
        again(copy)


@pytest.mark.parametrize("content", ['{"name": "my data"}', "[1]", "3", "not JSON"])
def test_a_manifest_or_shards_of_another_program_do_not_let_results_be_replaced(made, tmp_path, content):
    out = tmp_path / "out"
    mine = {"manifest.json": content, "train.npz": "patches", "shards/000.tar": "shard"}
    (out / "shards").mkdir(parents=True)
    for name, text in mine.items():
        (out / name).write_text(text)
    work = plan_work(made / "images", out, PATCHES, SPLIT, 0.0)
    with pytest.raises(InputError, match=r"train\.npz is there and was not made by this program"):
        prepare(work)
    (out / "train.npz").unlink()
    with pytest.raises(InputError, match=r"manifest\.json is there and was not made by this program"):
        prepare(work)
    assert all((out / name).read_text() == mine[name] for name in ("manifest.json", "shards/000.tar"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pairs", "36"), ("patches", {}), ("patches", [1]), ("scenes", 3), ("skipped", None), ("constant", []),
        ("files", {}), ("copies", []),
    ],
)  # fmt: skip
def test_a_manifest_that_was_edited_is_made_again(copy, key, value):
    before = results(copy)
    edited = {**json.loads(before["manifest.json"]), key: value}
    (copy / "out/manifest.json").write_text(json.dumps(edited))
    assert not images_changed(plan_work(copy / "images", copy / "out", PATCHES, SPLIT, 0.0))
    again(copy)
    assert results(copy) == before


def test_results_of_a_killed_process_are_made_again_although_the_manifest_is_missing(copy):
    before = results(copy)
    (copy / "out/manifest.json").unlink()
    again(copy)
    assert results(copy) == before


def test_hidden_files_of_the_user_stay_in_the_folder_of_the_results(copy):
    mine = {".env": "secret", ".train.npz.backup": "b", ".gitignore": "*", ".notes.0123456789ab": "n"}
    for name, text in mine.items():
        (copy / "out" / name).write_text(text)
    (copy / "out/.images-mine").mkdir()
    (copy / "out/manifest.json").unlink()
    again(copy)
    assert {name: (copy / "out" / name).read_text() for name in mine} == mine
    assert (copy / "out/.images-mine").is_dir()
