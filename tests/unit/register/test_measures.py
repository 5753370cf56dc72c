"""Hand-crafted measures: what they ignore, what they find, and how precisely."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdnet.measures import (
    MEASURES,
    correlate,
    describe_patches,
    find_peak,
    mean_surface,
    patch_distances,
)

EVERY_MEASURE = pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)


def texture(rows: int, columns: int, seed: int = 0, sigma: float = 3.0) -> np.ndarray:
    """Smooth random grey, uint8 [rows, columns], with structure at about 4 sigma pixels."""
    noise = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), sigma)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def shifted(image: np.ndarray, down: float, right: float) -> np.ndarray:
    """The same content, moved by a fraction of pixels."""
    matrix = np.array([[1, 0, right], [0, 1, down]], np.float64)
    return cv2.warpAffine(
        image.astype(np.float32),
        matrix,
        image.shape[::-1],
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REFLECT,
    )


@EVERY_MEASURE
def test_channels_are_balanced_float32_of_the_images_size(measure) -> None:
    channels = measure(texture(40, 56))
    assert channels.dtype == np.float32 and channels.shape[1:] == (40, 56)
    assert np.abs(channels.sum(axis=0)).max() < 1e-4
    assert np.linalg.norm(channels, axis=0).max() <= 1 + 1e-5


@EVERY_MEASURE
def test_a_constant_image_has_no_structure_and_correlates_with_nothing(measure) -> None:
    flat = measure(np.full((48, 48), 77, np.uint8))
    assert np.abs(flat).max() < 1e-2
    assert not describe_patches(np.zeros((2, 32, 32), np.uint8), measure).any()


@EVERY_MEASURE
@pytest.mark.parametrize(
    "change", [lambda x: 0.4 * x + 20, lambda x: 255.0 - x], ids=["contrast", "inverted"]
)
def test_contrast_and_its_inversion_do_not_matter(measure, change) -> None:
    image = texture(64, 64)
    plain, changed = measure(image), measure(change(image.astype(np.float32)))
    assert correlate(plain, changed)[0, 0] > 0.98


@EVERY_MEASURE
def test_a_shift_is_found_to_a_tenth_of_a_pixel_although_contrast_is_inverted(measure) -> None:
    image = texture(160, 160, seed=3)
    other = 255.0 - shifted(image, 4.3, -2.6)
    template = measure(image)[:, 40:120, 40:120]
    peak = find_peak(correlate(template, measure(other)[:, 28:132, 28:132]))
    assert (peak.row - 12, peak.column - 12) == pytest.approx((4.3, -2.6), abs=0.1)
    assert peak.inside and peak.score > 0.9 > peak.second


@EVERY_MEASURE
def test_equal_input_gives_equal_bytes(measure) -> None:
    image = texture(50, 70)
    assert measure(image).tobytes() == measure(image.copy()).tobytes()


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(3, 20),
    st.integers(3, 20),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 99),
)
def test_correlation_is_what_the_definition_says(channels, rows, columns, below, beside, seed) -> None:
    rng = np.random.default_rng(seed)
    template = rng.standard_normal((channels, rows, columns)).astype(np.float32)
    image = rng.standard_normal((channels, rows + below, columns + beside)).astype(np.float32)
    expected = np.empty((below + 1, beside + 1))
    for r, c in np.ndindex(expected.shape):
        window = image[:, r : r + rows, c : c + columns]
        expected[r, c] = (window * template).sum() / np.sqrt((window**2).sum() * (template**2).sum())
    np.testing.assert_allclose(correlate(template, image), expected, atol=1e-4)


def test_a_peak_on_the_rim_is_not_refined_and_says_so() -> None:
    surface = np.zeros((9, 9), np.float32)
    surface[0, 4] = 1
    peak = find_peak(surface, exclude_px=2)
    assert (peak.row, peak.column, peak.score, peak.second, peak.inside) == (0, 4, 1, 0, False)


def test_the_vertex_of_a_sampled_parabola_is_exact() -> None:
    rows, columns = np.mgrid[0:15, 0:15]
    surface = (1 - 0.01 * (rows - 6.3) ** 2 - 0.01 * (columns - 8.4) ** 2).astype(np.float32)
    peak = find_peak(surface)
    assert (peak.row, peak.column) == pytest.approx((6.3, 8.4), abs=1e-4)


def test_distances_of_matches_are_below_those_of_non_matches() -> None:
    patches = [texture(64, 64, seed) for seed in range(4)]
    matches = np.stack([np.hstack([patch, 255 - patch]) for patch in patches])
    strangers = np.stack([np.hstack([patch, patches[index - 1]]) for index, patch in enumerate(patches)])
    for measure in MEASURES.values():
        assert patch_distances(matches, measure).max() < patch_distances(strangers, measure).min()


def test_the_mean_surface_of_a_scene_peaks_at_its_shift() -> None:
    images = [texture(96, 96, seed) for seed in range(3)]
    surface = mean_surface(((i, 255 - shifted(i, 2, -3)) for i in images), 8, MEASURES["cfog"])
    peak = find_peak(surface)
    assert surface.shape == (17, 17)
    assert (peak.row - 8, peak.column - 8) == pytest.approx((2, -3), abs=0.1)


def test_a_mean_surface_of_no_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="needs at least one pair"):
        mean_surface([], 8, MEASURES["cfog"])
