"""Preprocessing in one process: what is kept, what is made again, what is refused."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdnet.config import ImageConfig, PatchConfig, SplitConfig, SyntheticConfig
from sdnet.data import prepare as module
from sdnet.data import shards
from sdnet.data.prepare import draw_negatives, prepare
from sdnet.data.store import open_patches
from sdnet.data.synthetic import make_tree
from sdnet.data.work import plan_work
from sdnet.errors import InputError

PATCHES, SPLIT = PatchConfig(per_pair=4, negatives=1.5), SplitConfig(train=0.5)
RESULTS = ("train.npz", "test.npz", "manifest.json")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `images`, 36 pairs of 6 scenes, and `out`, the prepared data."""
    folder = tmp_path_factory.mktemp("made")
    make_tree(folder / "images", SyntheticConfig(pairs=36, scenes=6))
    (folder / "out").mkdir()
    prepare(plan_work(folder / "images", folder / "out", PATCHES, SPLIT, 0.0))
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change; times of files are kept."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


@pytest.fixture
def shards_made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the shards that are made from now on."""
    names: list[str] = []
    make: Callable = module.make_shard

    def noting(shard, directory, config):
        names.append(shard.name)
        return make(shard, directory, config)

    monkeypatch.setattr(module, "make_shard", noting)
    return names


def again(folder: Path, patches: PatchConfig = PATCHES, max_bad_images: float = 0.0) -> dict:
    return prepare(plan_work(folder / "images", folder / "out", patches, SPLIT, max_bad_images))


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / "out" / name).read_bytes() for name in RESULTS}


def images_of(folder: Path, sensor: str) -> list[Path]:
    return sorted(folder.glob(f"images/*/{sensor}_*/*.png"))


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


def test_bad_images_are_skipped_counted_and_listed_with_their_reason(copy):
    truncated, missing_partner = images_of(copy, "s2")[0], images_of(copy, "s1")[5]
    truncated.write_bytes(truncated.read_bytes()[:5000])
    missing_partner.unlink()
    manifest = again(copy, max_bad_images=0.06)
    root = copy / "images"
    orphan = Path(str(missing_partner).replace("s1_", "s2_"))
    assert manifest["skipped"] == [
        {"image": truncated.relative_to(root).as_posix(), "reason": "is a truncated PNG (no end chunk)"},
        {"image": orphan.relative_to(root).as_posix(), "reason": "has no partner"},
    ]
    assert manifest["pairs"] == 35 and manifest["patches"] == {"train": 72, "test": 64 + 96}


def test_too_many_bad_images_fail_and_the_first_ten_are_named(copy):
    for path in images_of(copy, "s1")[::3]:
        path.write_bytes(b"")
    with pytest.raises(
        InputError, match=r"12 bad images for 36 pairs, above data\.max_bad_images"
    ) as refusal:
        again(copy, max_bad_images=0.3)
    assert str(refusal.value).count("is empty") == 10
    with pytest.raises(InputError, match="12 bad images"):
        again(copy, max_bad_images=0.3)
    assert again(copy, max_bad_images=0.34)["pairs"] == 36


def test_a_lower_limit_is_not_passed_by_an_old_result(copy):
    images_of(copy, "s1")[0].write_bytes(b"")
    again(copy, max_bad_images=0.1)
    with pytest.raises(InputError, match="1 bad images for 36 pairs"):
        again(copy, max_bad_images=0.0)


def test_a_single_test_scene_is_refused_before_any_work(made, tmp_path, shards_made):
    split = SplitConfig(train_scenes=("*_1", "*_2"), test_scenes=("*_3",))
    with pytest.raises(InputError, match=r"only test scene is ROIs0000_synthetic_3; .* at least 2"):
        plan_work(made / "images", tmp_path, PATCHES, split, 0.0)
    assert shards_made == [] and not list(tmp_path.iterdir())


def test_images_without_texture_are_refused(copy):
    for path in images_of(copy, "s2"):
        assert cv2.imwrite(str(path), np.zeros((256, 256), np.uint8))
    with pytest.raises(InputError, match=r"train scenes gave no patch \(18 of their images have one value"):
        again(copy)


def test_a_side_without_a_patch_names_an_image_that_cannot_be_used(copy):
    for path in images_of(copy, "s2"):
        path.write_bytes(b"")
    work = plan_work(copy / "images", copy / "out", PATCHES, SPLIT, 1.0)
    with pytest.raises(
        InputError, match=r"value only, 18 cannot be used: \S+/s2_\S+\.png is empty; \.\.\.\)"
    ):
        prepare(work)


def test_shards_do_not_depend_on_anything_but_the_pairs(made, tmp_path):
    work = plan_work(made / "images", tmp_path, PATCHES, SPLIT, 0.0)
    assert [len(shard.pairs) for shard in work.train] == [8, 8, 2]
    assert [shard.name for shard in work.shards][-1] == "test-00002"


def test_a_worker_that_makes_shards_loads_neither_mindspore_nor_ray():
    code = "import sys, sdnet.data.shards; print({'mindspore', 'ray'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_constant_images_and_windows_are_left_out_and_counted_but_are_not_bad(copy):
    black, half = images_of(copy, "s1")[0], images_of(copy, "s1")[7]
    image = cv2.imread(str(half), cv2.IMREAD_GRAYSCALE)
    image[:, :200] = 0
    assert cv2.imwrite(str(black), np.zeros((256, 256), np.uint8)) and cv2.imwrite(str(half), image)
    manifest = again(copy)
    assert manifest["skipped"] == []
    assert manifest["constant"]["images"] == [black.relative_to(copy / "images").as_posix()]
    assert manifest["constant"]["windows"] > 0
    for name in ("train.npz", "test.npz"):
        halves = np.split(np.asarray(open_patches(copy / "out" / name).images), 2, axis=2)
        assert all((half.min(axis=(1, 2)) < half.max(axis=(1, 2))).all() for half in halves)


def test_what_was_left_out_is_reported_again_when_nothing_is_made_again(copy):
    assert cv2.imwrite(str(images_of(copy, "s1")[0]), np.zeros((256, 256), np.uint8))
    assert again(copy) == again(copy)


def test_an_image_above_the_limit_is_bad_and_another_limit_makes_it_good(copy):
    work = partial(plan_work, copy / "images", copy / "out", PATCHES, SPLIT, 1.0)
    with pytest.raises(InputError, match="the train scenes gave no patch"):
        prepare(work(ImageConfig(max_pixels=256 * 256 - 1)))
    manifest = prepare(work(ImageConfig(max_pixels=256 * 256)))
    assert manifest["skipped"] == [] and manifest["patches"]["train"] == 72


def test_keypoints_that_fail_make_a_bad_image_and_do_not_end_the_work(copy, monkeypatch):
    cut, failed = shards.cut_patches, images_of(copy, "s2")[0]

    def fails_for_one(optical, sar, config):
        if (optical == cv2.imread(str(failed), cv2.IMREAD_GRAYSCALE)).all():
            raise cv2.error("too much")
        return cut(optical, sar, config)

    monkeypatch.setattr(shards, "cut_patches", fails_for_one)
    manifest = again(copy, PatchConfig(per_pair=2), max_bad_images=0.1)
    [skipped] = manifest["skipped"]
    assert skipped["image"] == failed.relative_to(copy / "images").as_posix()
    assert skipped["reason"].startswith("has 65536 px, and keypoints failed")


def test_too_many_images_without_a_partner_are_refused_before_any_work(copy, shards_made):
    for path in images_of(copy, "s1")[:4]:
        path.unlink()
    with pytest.raises(InputError, match=r"4 bad images for 32 pairs.*p1\.png has no partner"):
        again(copy, max_bad_images=0.1)
    assert shards_made == []


def test_a_pair_smaller_than_a_patch_is_bad_and_counted(copy):
    optical, sar = images_of(copy, "s2")[3], images_of(copy, "s1")[3]
    for path in (optical, sar):
        cv2.imwrite(str(path), cv2.imread(str(path))[:63, :80])
    with pytest.raises(InputError, match=f"{optical.name} is 80 x 63 px, smaller than a patch of 64 px"):
        again(copy)
    assert len(again(copy, max_bad_images=0.5)["skipped"]) == 1


def test_patches_that_this_program_did_not_make_are_never_replaced(copy):
    shutil.rmtree(copy / "out/shards")
    (copy / "out/manifest.json").unlink()
    (copy / "out/train.npz").unlink()
    with pytest.raises(
        InputError, match=r"test\.npz is there and was not made by this program .*; move it away"
    ):
        again(copy)


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
