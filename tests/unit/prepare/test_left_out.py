"""What preprocessing leaves out: bad images, constant ones, and how it counts and limits them."""

import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from sdnet.config import ImageConfig, PatchConfig
from sdnet.data.store import open_patches
from sdnet.errors import InputError
from sdnet.preparation import shards
from sdnet.preparation.copies import notes_on_copies
from sdnet.preparation.prepare import notes_on_result, prepare
from sdnet.preparation.work import plan_work
from tests.unit.prepare.prepared import PATCHES, SPLIT, again, images_of


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
    assert notes_on_result(manifest) == (
        f"1 image(s) cannot be used and are left out: {truncated.relative_to(root).as_posix()} "
        "is a truncated PNG (no end chunk)",
    )
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


def test_test_pairs_with_the_pixels_of_a_training_pair_are_listed_and_give_a_note(copy):
    assert again(copy)["copies"] == {"pairs": 0, "in_train_and_test": []}
    assert notes_on_copies(again(copy)) == ()
    scenes = again(copy)["scenes"]

    def first(side: str, sensor: str) -> Path:
        season, _, scene = scenes[side][0].rpartition("_")
        return sorted(copy.glob(f"images/{season}/{sensor}_{scene}/*.png"))[0]

    for sensor in ("s1", "s2"):
        image = cv2.imread(str(first("train", sensor)), cv2.IMREAD_GRAYSCALE)
        assert cv2.imwrite(str(first("test", sensor)), image, [cv2.IMWRITE_PNG_COMPRESSION, 0])
    for _ in range(2):  # made, and found made
        manifest = again(copy)
        name = first("test", "s1").stem.replace("_s1", "")
        assert manifest["copies"] == {"pairs": 1, "in_train_and_test": [name]}
        [note] = notes_on_copies(manifest)
        assert note.startswith(
            "1 test pair(s) have the same pixels as a training pair, so the test is too easy"
        )
        assert f": {name}; remove the copies" in note


def test_shards_of_an_older_version_are_kept_although_they_do_not_know_their_pixels(copy, shards_made):
    for path in (copy / "out" / "shards").glob("*.json"):
        report = json.loads(path.read_text())
        del report["pixels"]
        path.write_text(json.dumps(report))
    (copy / "out" / "manifest.json").unlink()
    assert again(copy)["copies"] == {"pairs": 0, "in_train_and_test": []} and not shards_made


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


@pytest.mark.parametrize("no_data", [-10000, 1e20])
def test_an_image_that_loses_its_contrast_to_an_undeclared_no_data_value_is_named(copy, no_data):
    path = images_of(copy, "s1")[0]
    measured = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255
    measured[:20] = no_data
    encoded = cv2.imencode(".tif", measured)[1].tobytes()
    path.unlink()
    path.with_suffix(".tif").write_bytes(encoded)
    partner = Path(str(path).replace("s1_", "s2_"))
    partner_pixels = cv2.imread(str(partner), cv2.IMREAD_GRAYSCALE)
    assert cv2.imwrite(str(partner), np.where(partner_pixels > 128, 255, 0))  # 8 bits are not stretched
    manifest = again(copy, max_bad_images=0.1)
    name = path.with_suffix(".tif").relative_to(copy / "images").as_posix()
    assert manifest["few_levels"] == [{"image": name, "levels": 2}]
    assert again(copy, max_bad_images=0.1) == manifest
    assert notes_on_result(manifest)[0] == (
        "1 image(s) have fewer than 16 grey levels after the stretch to 8 bits, perhaps because of a no-data value; "
        f"if so, declare it (gdal_edit.py -a_nodata) and prepare the data again: {name} (2)"
    )
