"""Images in, windows around SIFT keypoints out; images that lie about being whole are found out."""

import errno
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdnet.config import PatchConfig
from sdnet.data.patches import BadImage, choose_centres, cut_patches, read_grey, read_pair
from sdnet.data.sen12 import Pair, find_pairs
from sdnet.data.synthetic import make_pair


@pytest.fixture(scope="module")
def place() -> tuple[np.ndarray, np.ndarray]:
    """Grey optical and SAR image of one place."""
    optical, sar = make_pair(seed=1, scene=0, number=1)
    return cv2.cvtColor(optical, cv2.COLOR_BGR2GRAY), sar


def written(path: Path, image: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), image)
    return path


def test_both_halves_of_a_patch_are_the_same_window(place):
    optical, _ = place
    patches = cut_patches(optical, 255 - optical, PatchConfig(per_pair=5))
    assert patches.shape == (5, 64, 128) and patches.dtype == np.uint8
    np.testing.assert_array_equal(patches[:, :, 64:], 255 - patches[:, :, :64])


@pytest.mark.parametrize("detect_on", ["optical", "sar", "both"])
def test_patches_are_windows_of_the_image_that_stand_apart(place, detect_on):
    optical = np.arange(256 * 256, dtype=np.uint32).reshape(256, 256)
    # The top left pixel of an optical window tells where it was cut; two images hold 16 bits.
    config = PatchConfig(per_pair=6, min_distance_px=30, detect_on=detect_on)
    keypoints = np.array([[5, 40, 40], [9, 41, 41], [8, 200, 100], [7, 10, 100]], np.float32)
    centres = choose_centres(keypoints, optical.shape, config)
    assert centres == [(41, 41), (100, 200)]
    assert len(cut_patches(*place, config)) == 6


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


def test_an_image_without_texture_or_smaller_than_a_window_gives_no_patch(place):
    flat = np.full((256, 256), 7, np.uint8)
    assert cut_patches(flat, flat, PatchConfig()).shape == (0, 64, 128)
    small = place[0][:60, :60].copy()
    assert cut_patches(small, small, PatchConfig()).shape == (0, 64, 128)


def test_patches_are_the_same_every_time(place):
    config = PatchConfig(per_pair=12, detect_on="both")
    np.testing.assert_array_equal(cut_patches(*place, config), cut_patches(*place, config))


def test_rgb_becomes_grey_and_grey_stays_what_it_is(tmp_path, place):
    optical, sar = place
    np.testing.assert_array_equal(read_grey(written(tmp_path / "sar.png", sar)), sar)
    colours = np.zeros((64, 64, 3), np.uint8)
    colours[:, :, 2] = 200  # red, in OpenCV's order
    # 0.299 * 200 is 59.8; decoders cut or round it.
    assert set(np.unique(read_grey(written(tmp_path / "rgb.png", colours)))) <= {59, 60}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_image_is_bad_however_much_of_it_opencv_would_decode(tmp_path, place, suffix, share):
    path = written(tmp_path / f"image{suffix}", place[0])
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(BadImage) as refusal:
        read_grey(path)
    assert refusal.value.path == path and refusal.value.reason


def test_a_png_with_one_flipped_bit_is_bad(tmp_path, place):
    path = written(tmp_path / "image.png", place[0])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadImage, match=r"damaged PNG \(checksum of its IDAT chunk\)"):
        read_grey(path)


def test_a_missing_image_a_folder_and_a_text_are_bad_and_say_why(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "text.png").write_text("not an image", encoding="utf-8")
    for name, reason in (
        ("none.png", r"cannot be read \(No such file or directory\)"),
        ("folder.png", r"cannot be read \(Is a directory\)"),
        ("text.png", "is not an image that OpenCV decodes"),
    ):
        with pytest.raises(BadImage, match=reason):
            read_grey(tmp_path / name)


def test_storage_that_is_away_is_no_fault_of_the_image(monkeypatch, tmp_path):
    def stale(path: Path) -> bytes:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Path, "read_bytes", stale)
    with pytest.raises(OSError, match="Stale file handle"):
        read_grey(tmp_path / "image.png")


def test_partners_of_different_size_are_bad(tmp_path, place):
    optical = written(tmp_path / "optical.png", place[0])
    sar = written(tmp_path / "sar.png", place[1][:, :200])
    with pytest.raises(BadImage, match="is 200 x 256 px, its optical partner 256 x 256 px"):
        read_pair(Pair("scene", "pair", optical, sar))


def plain_sift_patches(optical: np.ndarray, sar: np.ndarray, config: PatchConfig) -> np.ndarray:
    """What `cut_patches` means: all keypoints at OpenCV's default contrast, strongest first."""
    found = cv2.SIFT_create().detect(optical, None)  # type: ignore[attr-defined]
    keypoints = np.array([(point.response, *point.pt) for point in found], np.float32).reshape(-1, 3)
    centres = choose_centres(keypoints, optical.shape, config)
    windows = [np.s_[row - 32 : row + 32, column - 32 : column + 32] for row, column in centres]
    return np.array([np.hstack([optical[window], sar[window]]) for window in windows], np.uint8)


@pytest.mark.parametrize("per_pair", [4, 12, 60, 1000])
def test_looking_for_strong_keypoints_first_cuts_the_same_patches_as_looking_for_all(place, per_pair):
    config = PatchConfig(per_pair=per_pair)
    expected = plain_sift_patches(*place, config)
    assert len(expected) > 0
    np.testing.assert_array_equal(cut_patches(*place, config), expected)


def test_real_tiles_give_the_same_patches_when_strong_keypoints_are_looked_for_first(shared):
    config = PatchConfig(per_pair=12)
    for pair in find_pairs(shared / "data/s1s2-sample").pairs[::16]:
        images = read_pair(pair)
        np.testing.assert_array_equal(cut_patches(*images, config), plain_sift_patches(*images, config))
