"""Synthetic pairs: equal for equal seeds, all different, and hard for a comparison of raw pixels."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from sdnet.config import PatchConfig, SyntheticConfig
from sdnet.evaluation.metrics import fpr95
from sdnet.preparation import synthetic
from sdnet.preparation.patches import cut_patches
from sdnet.preparation.prepare import draw_negatives
from sdnet.preparation.sen12 import find_pairs
from sdnet.preparation.synthetic import make_pair, make_tree


def tree(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def test_a_pair_is_a_pure_function_of_seed_scene_and_number():
    optical, sar = make_pair(3, 1, 2)
    assert (optical.shape, optical.dtype) == ((256, 256, 3), np.uint8)
    assert (sar.shape, sar.dtype) == ((256, 256), np.uint8)
    again = make_pair(3, 1, 2)
    np.testing.assert_array_equal(optical, again[0])
    np.testing.assert_array_equal(sar, again[1])


def test_no_two_pairs_show_the_same_ground():
    pictures = {make_pair(seed, scene, number)[0].tobytes()
                for seed in (0, 1) for scene in (0, 1, 2) for number in (1, 2, 3)}  # fmt: skip
    assert len(pictures) == 18


def test_a_tree_is_laid_out_as_sen12_and_holds_every_pair(tmp_path):
    make_tree(tmp_path / "images", SyntheticConfig(pairs=7, scenes=3))
    listing = find_pairs(tmp_path / "images")
    assert [pair.name for pair in listing.pairs] == [
        f"ROIs0000_synthetic_{name}" for name in ("0_p1", "0_p2", "0_p3", "1_p1", "1_p2", "2_p1", "2_p2")
    ]
    assert listing.orphans == ()
    sar = cv2.imread(str(listing.pairs[0].sar), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(sar, make_pair(0, 0, 1)[1])


def test_a_tree_that_is_there_is_kept_and_another_ones_is_replaced_whole(tmp_path):
    root, config = tmp_path / "images", SyntheticConfig(pairs=3, scenes=3)
    make_tree(root, config)
    before = {path: path.stat().st_ino for path in root.rglob("*")}
    make_tree(root, config)
    assert {path: path.stat().st_ino for path in root.rglob("*")} == before
    make_tree(root, SyntheticConfig(pairs=4, scenes=3, seed=1))
    assert len(find_pairs(root).pairs) == 4


def test_what_a_killed_run_left_is_removed_and_the_tree_is_the_same_to_the_byte(tmp_path):
    config = SyntheticConfig(pairs=3, scenes=3)
    make_tree(tmp_path / "whole", config)
    left = tmp_path / ".images.4711" / "ROIs0000_synthetic" / "s1_0"
    left.mkdir(parents=True)
    (left / "half.png").write_bytes(b"half")
    make_tree(tmp_path / "images", config)
    assert tree(tmp_path / "images") == tree(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "whole"]


def test_an_interrupted_run_leaves_no_part_of_the_tree(tmp_path, monkeypatch):
    def interrupted(path, image):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "_write_png", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_tree(tmp_path / "images", SyntheticConfig(pairs=3, scenes=3))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def matches() -> tuple[np.ndarray, np.ndarray]:
    """Patches of 4 scenes, and the scene of each."""
    cut = []
    for scene in range(4):
        for number in (1, 2):
            optical, sar = make_pair(0, scene, number)
            grey = cv2.cvtColor(optical, cv2.COLOR_BGR2GRAY)
            cut.append(cut_patches(grey, sar, PatchConfig(per_pair=12)).patches)
    return np.concatenate(cut), np.repeat(np.arange(8) // 2, [len(patches) for patches in cut])


def test_raw_pixels_cannot_tell_matches_from_the_rest(matches):
    patches, scenes = matches
    optical, sar = draw_negatives(scenes, 1.0, seed=0)
    images = patches.astype(np.float64)
    left = np.concatenate([images[:, :, :64], images[optical, :, :64]])
    right = np.concatenate([images[:, :, 64:], images[sar, :, 64:]])
    labels = np.repeat([1, 0], [len(patches), len(optical)])
    distances = np.sqrt(((left - right) ** 2).sum(axis=(1, 2)))
    assert fpr95(distances, labels) > 0.8


def test_both_sensors_see_the_same_edges(matches):
    """This is what a network can learn: both images have edges in the same places."""
    patches, scenes = matches
    optical, sar = draw_negatives(scenes, 1.0, seed=0)

    def edges(half: np.ndarray) -> np.ndarray:
        smooth = [cv2.GaussianBlur(np.log1p(patch.astype(np.float32)), (0, 0), 2.5) for patch in half]
        strength = np.array([np.hypot(*np.gradient(image)) for image in smooth]).reshape(len(half), -1)
        strength -= strength.mean(axis=1, keepdims=True)
        return strength / np.linalg.norm(strength, axis=1, keepdims=True)

    left, right = edges(patches[:, :, :64]), edges(patches[:, :, 64:])
    matching = (left * right).sum(axis=1).mean()
    assert matching > 3 * abs((left[optical] * right[sar]).sum(axis=1).mean()) and matching > 0.15
