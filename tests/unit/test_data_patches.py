"""Windows around SIFT keypoints, the same in both images."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdnet.config import PatchConfig
from sdnet.images.decode import read_pair
from sdnet.preparation.patches import choose_centres, cut_patches
from sdnet.preparation.sen12 import find_pairs
from sdnet.preparation.synthetic import make_pair

# A grey optical and a SAR image.
Place = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def place() -> Place:
    """Grey optical and SAR image of one place."""
    optical, sar = make_pair(seed=1, scene=0, number=1)
    return cv2.cvtColor(optical, cv2.COLOR_BGR2GRAY), sar


def test_both_halves_of_a_patch_are_the_same_window(place: Place) -> None:
    optical, _ = place
    patches = cut_patches(optical, 255 - optical, PatchConfig(per_pair=5)).patches
    assert patches.shape == (5, 64, 128) and patches.dtype == np.uint8
    np.testing.assert_array_equal(patches[:, :, 64:], 255 - patches[:, :, :64])


@pytest.mark.parametrize("detect_on", ["optical", "sar", "both"])
def test_patches_are_windows_of_the_image_that_stand_apart(place: Place, detect_on) -> None:
    optical = np.arange(256 * 256, dtype=np.uint32).reshape(256, 256)
    # The top left pixel of an optical window encodes its position; two images give 16 bits.
    config = PatchConfig(per_pair=6, min_distance_px=30, detect_on=detect_on)
    keypoints = np.array([[5, 40, 40], [9, 41, 41], [8, 200, 100], [7, 10, 100]], np.float32)
    centres = choose_centres(keypoints, optical.shape, config)
    assert centres == [(41, 41), (100, 200)]
    assert len(cut_patches(*place, config).patches) == 6


@given(
    points=st.lists(
        st.tuples(st.integers(0, 5), st.floats(0, 255, width=32), st.floats(0, 255, width=32)), max_size=60
    ),
    apart=st.floats(0, 80),
    per_pair=st.integers(1, 20),
)
def test_centres_are_inside_apart_strongest_first_and_blind_to_the_order_of_keypoints(
    points, apart, per_pair
):
    config = PatchConfig(per_pair=per_pair, min_distance_px=apart)
    keypoints = np.array(points, np.float32).reshape(-1, 3)
    centres = choose_centres(keypoints, (256, 200), config)
    assert centres == choose_centres(keypoints[::-1], (256, 200), config)
    assert all(32 <= row <= 224 and 32 <= column <= 168 for row, column in centres)
    assert len(centres) <= per_pair and len(set(centres)) == len(centres)
    for number, (row, column) in enumerate(centres):
        assert all((row - r) ** 2 + (column - c) ** 2 >= apart**2 for r, c in centres[:number])
    inside = [
        (-response, round(y), round(x))
        for response, x, y in points
        if 32 <= round(y) <= 224 and 32 <= round(x) <= 168
    ]
    assert centres[:1] == [position[1:] for position in sorted(inside)[:1]]


def test_an_image_without_texture_or_smaller_than_a_window_gives_no_patch(place: Place) -> None:
    flat = np.full((256, 256), 7, np.uint8)
    assert cut_patches(flat, flat, PatchConfig()).patches.shape == (0, 64, 128)
    small = place[0][:60, :60].copy()
    assert cut_patches(small, small, PatchConfig()).patches.shape == (0, 64, 128)


def test_patches_are_the_same_every_time(place: Place) -> None:
    config = PatchConfig(per_pair=12, detect_on="both")
    first, second = (cut_patches(*place, config).patches for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_window_that_is_constant_in_either_image_is_left_out_and_counted(place: Place) -> None:
    optical, sar = place[0].copy(), place[1].copy()
    whole = cut_patches(optical, sar, PatchConfig(per_pair=1000))
    assert whole.constant == 0 and len(whole.patches) > 20
    sar[:, :140] = 0  # the edge of a swath
    optical[:, 220:] = 255  # a cloud
    cut = cut_patches(optical, sar, PatchConfig(per_pair=1000))
    assert cut.constant > 0 and 0 < len(cut.patches) < len(whole.patches)
    halves = cut.patches.reshape(-1, 64, 2, 64).transpose(0, 2, 1, 3).reshape(-1, 64 * 64)
    assert (halves.min(axis=1) < halves.max(axis=1)).all()


def test_the_next_keypoint_takes_the_place_of_a_constant_window(place: Place) -> None:
    optical, sar = place[0], place[1].copy()
    sar[:, :128] = 0
    assert len(cut_patches(optical, sar, PatchConfig(per_pair=4)).patches) == 4


def plain_sift_patches(optical: np.ndarray, sar: np.ndarray, config: PatchConfig) -> np.ndarray:
    """The definition of `cut_patches`: all keypoints at OpenCV's default contrast, strongest first."""
    found = cv2.SIFT_create().detect(optical, None)  # type: ignore[attr-defined]
    keypoints = np.array([(point.response, *point.pt) for point in found], np.float32).reshape(-1, 3)
    centres = choose_centres(keypoints, optical.shape, config)
    windows = [np.s_[row - 32 : row + 32, column - 32 : column + 32] for row, column in centres]
    return np.array([np.hstack([optical[window], sar[window]]) for window in windows], np.uint8)


@pytest.mark.parametrize("per_pair", [4, 12, 60, 1000])
def test_looking_for_strong_keypoints_first_cuts_the_same_patches_as_looking_for_all(
    place: Place, per_pair
) -> None:
    config = PatchConfig(per_pair=per_pair)
    expected = plain_sift_patches(*place, config)
    assert len(expected) > 0
    np.testing.assert_array_equal(cut_patches(*place, config).patches, expected)


def test_real_tiles_give_the_same_patches_when_strong_keypoints_are_looked_for_first(shared):
    config = PatchConfig(per_pair=12)
    for pair in find_pairs(shared / "data/s1s2-sample").pairs[::16]:
        images = read_pair(pair.optical, pair.sar, 1 << 24)
        expected = plain_sift_patches(*images, config)
        np.testing.assert_array_equal(cut_patches(*images, config).patches, expected)
