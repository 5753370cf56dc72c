"""Larger patches, their places, and the shifts of scenes, from images to train.npz."""

import json
from pathlib import Path

import numpy as np
import pytest

from sdnet.config import PatchConfig, SplitConfig, SyntheticConfig
from sdnet.data.places import Places
from sdnet.data.store import extra_array, open_patches, write_patches
from sdnet.errors import InputError
from sdnet.preparation.patches import cut_patches
from sdnet.preparation.prepare import prepare
from sdnet.preparation.synthetic import make_pair, make_tree
from sdnet.preparation.work import plan_work

MODERN = PatchConfig(stored_size=96, align=True)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images") / "tree"
    make_tree(root, SyntheticConfig(pairs=24, scenes=4))
    return root


def prepared(images: Path, out: Path, patches: PatchConfig) -> dict:
    out.mkdir(parents=True)
    return prepare(plan_work(images, out, patches, SplitConfig(train=0.5), 0.0))


@pytest.fixture(scope="module")
def modern(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "modern"
    prepared(images, out, MODERN)
    return out


@pytest.fixture(scope="module")
def plain(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "plain"
    prepared(images, out, PatchConfig())
    return out


def test_a_larger_patch_has_the_published_one_in_its_middle_and_the_images_around_it():
    optical, sar = make_pair(0, 0, 0)
    optical = np.ascontiguousarray(optical[:, :, 1])
    small, large = (cut_patches(optical, sar, PatchConfig(stored_size=size)) for size in (64, 96))
    np.testing.assert_array_equal(large.centres, small.centres)
    np.testing.assert_array_equal(large.patches[:, 16:80, 16:80], small.patches[:, :, :64])
    np.testing.assert_array_equal(large.patches[:, 16:80, 112:176], small.patches[:, :, 64:])
    mirrored = np.pad(sar, 16, mode="reflect")
    for patch, (row, column) in zip(large.patches, large.centres, strict=True):
        np.testing.assert_array_equal(patch[:, 96:], mirrored[row - 32 : row + 64, column - 32 : column + 64])


def test_larger_patches_change_neither_the_pairs_nor_the_test_set(plain, modern):
    small, large = open_patches(plain / "train.npz"), open_patches(modern / "train.npz")
    assert large.images.shape == (len(small), 96, 192)
    np.testing.assert_array_equal(large.images[:, 16:80, 16:80], small.images[:, :, :64])
    assert (modern / "test.npz").read_bytes() == (plain / "test.npz").read_bytes()


def test_the_shift_of_a_training_scene_is_kept_for_each_of_its_pairs_and_in_the_manifest(modern):
    train, manifest = open_patches(modern / "train.npz"), json.loads((modern / "manifest.json").read_text())
    places = Places.read(modern / "train.npz", len(train))
    found = manifest["alignment"]
    assert places is not None and train.shifts is not None
    assert found["scenes"].keys() | found["not_trusted"].keys() == set(places.scenes)
    for number, name in enumerate(places.scenes):
        expected = found["scenes"].get(name, [0, 0])
        assert (train.shifts[places.scene == number] == expected).all()
    assert found["largest_px"] <= 2  # synthetic images are aligned


def test_without_align_there_are_no_shifts(plain):
    assert open_patches(plain / "train.npz").shifts is None
    assert "alignment" not in json.loads((plain / "manifest.json").read_text())


def test_a_non_match_has_the_place_of_its_optical_patch(plain):
    test = open_patches(plain / "test.npz")
    places = Places.read(plain / "test.npz", len(test))
    assert places is not None
    assert set(places.scenes) == set(json.loads((plain / "manifest.json").read_text())["scenes"]["test"])
    matches = test.images[test.labels == 1, :, :64]
    for index in np.flatnonzero(test.labels == 0):
        (lender,) = np.flatnonzero((matches == test.images[index, :, :64]).all(axis=(1, 2)))
        assert places.scene[index] == places.scene[lender]
        assert (places.centre[index] == places.centre[lender]).all()


def test_a_file_without_places_says_so_and_wrong_ones_are_refused(tmp_path):
    patches, labels = np.zeros((2, 64, 128), np.uint8), np.ones(2, np.int32)
    write_patches(tmp_path / "old.npz", 2, [patches], labels)
    assert Places.read(tmp_path / "old.npz", 2) is None
    extras = {"scenes": np.array(["a"]), "places": np.zeros((3, 4), np.int32)}
    write_patches(tmp_path / "wrong.npz", 2, [patches], labels, extras=extras)
    with pytest.raises(InputError, match=r"places is int32 \[3, 4\], not of kind i and shape \[2, 4\]"):
        Places.read(tmp_path / "wrong.npz", 2)
    extras["places"] = np.zeros((2, 4), np.int32, order="F")
    write_patches(tmp_path / "fortran.npz", 2, [patches], labels, extras=extras)
    with pytest.raises(InputError, match=r"fortran.npz: places is in Fortran order; write it with numpy"):
        Places.read(tmp_path / "fortran.npz", 2)
    extras = {"scenes": np.array(["a"]), "places": np.zeros((2, 4), np.int32)}
    write_patches(tmp_path / "text.npz", 2, [patches], labels, extras=extras)
    content = (tmp_path / "text.npz").read_bytes()
    (tmp_path / "text.npz").write_bytes(content.replace("a".encode("utf-32-le"), b"\xff\xff\xff\x7f"))
    with pytest.raises(InputError, match="text.npz: scenes holds damaged text; prepare the data again"):
        Places.read(tmp_path / "text.npz", 2)
    extras["places"] = np.array([[0] * 4, [1] * 4], np.int32)
    write_patches(tmp_path / "beyond.npz", 2, [patches], labels, extras=extras)
    with pytest.raises(InputError, match="beyond.npz: places name scene 1 of 1"):
        Places.read(tmp_path / "beyond.npz", 2)
    extras["places"] = np.array([[0] * 4, [-3] * 4], np.int32)
    write_patches(tmp_path / "below.npz", 2, [patches], labels, extras=extras)
    with pytest.raises(InputError, match="below.npz: places name scene -3 of 1"):
        Places.read(tmp_path / "below.npz", 2)


def test_shifts_of_another_shape_are_refused_when_the_file_is_opened(tmp_path):
    extras = {"shifts": np.zeros((2, 3), np.int16)}
    write_patches(
        tmp_path / "x.npz", 2, [np.zeros((2, 64, 128), np.uint8)], np.ones(2, np.int32), extras=extras
    )
    with pytest.raises(InputError, match="shifts is int16"):
        open_patches(tmp_path / "x.npz")


def test_an_array_with_pickled_objects_is_never_loaded(tmp_path):
    np.savez(tmp_path / "x.npz", arr_0=np.zeros((1, 64, 128), np.uint8), scenes=np.array([{}], object))
    with pytest.raises(InputError, match="pickled objects"):
        extra_array(tmp_path / "x.npz", "scenes", "U", (None,))


@pytest.mark.parametrize("size", [0, 62, 65, 130])
def test_a_stored_size_that_cannot_hold_the_window_is_refused(size):
    with pytest.raises(InputError, match=f"stored_size is {size}; it must be even, from 64 to 128"):
        PatchConfig(stored_size=size)
