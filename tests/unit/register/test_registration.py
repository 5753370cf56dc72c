"""Registration finds known transforms, refuses images that do not match, and repeats to the last bit."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sdnet
from sdnet.errors import InputError
from sdnet.measures import cfog, cfog_mind, mind
from sdnet.registration.files.warp import warp
from sdnet.registration.fitting.joint import fit_jointly
from sdnet.registration.fitting.robust import sample_affine
from sdnet.registration.fitting.trust import evidence
from sdnet.registration.images import image_from_array
from sdnet.registration.matching.surfaces import Surfaces
from sdnet.registration.tie_points import TiePoints
from sdnet.registration.transform import IDENTITY, ShiftGrid, Transform, affine, transform_from_dict
from tests.made_pairs import ground, pair, turned

EDGE = 320


def grid_points(edge: int = EDGE, border: int = 60) -> np.ndarray:
    along = np.linspace(border, edge - border, 7)
    return np.stack(np.meshgrid(along, along, indexing="ij"), axis=-1).reshape(-1, 2)


def error_px(found: Transform, matrix: np.ndarray, edge: int = EDGE) -> float:
    """Mean distance from the truth over the image."""
    points = grid_points(edge)
    truth = Transform("affine", matrix).apply(points)
    return float(np.linalg.norm(found.apply(points) - truth, axis=1).mean())


TRUTHS = {
    "translation": np.array([[1, 0, 17.3], [0, 1, -22.6], [0, 0, 1.0]]),
    "affine": turned(2.5, 1.015, (14.2, -9.7), EDGE),
    "homography": turned(-1.5, 0.99, (-20.1, 6.4), EDGE) + np.array([[0, 0, 0], [0, 0, 0], [2e-5, -3e-5, 0]]),
    "piecewise": turned(1.0, 1.0, (3.3, 4.4), EDGE),
}


@pytest.mark.parametrize("model", TRUTHS)
def test_a_transform_of_each_model_is_found_to_a_quarter_of_a_pixel(model) -> None:
    found = sdnet.register(*pair(EDGE, TRUTHS[model]), model=model, measure="cfog")
    assert found.verdict.trusted and found.transform is not None and found.transform.model == model
    assert error_px(found.transform, TRUTHS[model]) < 0.25
    assert np.median(found.held_out_px[found.inliers]) < 0.5


def hill(points: np.ndarray) -> np.ndarray:
    """Shift of optical points by relief in columns, [N]: 14 px at the top of a hill."""
    return 14 * np.exp(-0.5 * np.square((points - 256) / (90, 70)).sum(axis=1))


def test_a_piecewise_transform_follows_relief_that_no_matrix_describes() -> None:
    edge = 512
    optical, flat = pair(edge, np.eye(3))
    seen = np.moveaxis(np.indices((edge, edge)), 0, -1).reshape(-1, 2).astype(float)
    place = seen.copy()
    for _ in range(30):  # the shift that the hill causes
        place[:, 1] = seen[:, 1] - hill(place)
    rows, columns = place.T.reshape(2, edge, edge).astype(np.float32)
    sar = cv2.remap(flat, columns, rows, cv2.INTER_LINEAR)
    points = grid_points(edge, border=90)
    truth = points + np.outer(hill(points), [0, 1])
    missed = {}
    for model in ("affine", "piecewise"):
        found = sdnet.register(optical, sar, model=model, measure="cfog")
        assert found.verdict.trusted and found.transform is not None
        missed[model] = np.linalg.norm(found.transform.apply(points) - truth, axis=1)
    assert missed["affine"].max() > 5
    assert missed["piecewise"].max() < 2 and np.median(missed["piecewise"]) < 0.5
    assert np.nanmedian(found.held_out_px) < 1.0


def test_the_wide_search_finds_a_rotation_and_a_large_shift() -> None:
    truth = turned(140, 1.0, (65, -80), EDGE)
    images = pair(EDGE, truth, seed=4)
    assert not sdnet.register(*images, measure="cfog").verdict.trusted
    found = sdnet.register(*images, search="wide", measure="cfog")
    assert found.verdict.trusted and found.transform is not None
    assert error_px(found.transform, truth) < 0.5


@pytest.mark.parametrize("search", ["near", "wide"])
def test_images_of_two_places_are_not_trusted_and_the_reason_says_so(search) -> None:
    optical, _ = pair(EDGE, np.eye(3), seed=1)
    _, stranger = pair(EDGE, np.eye(3), seed=2)
    found = sdnet.register(optical, stranger, search=search, measure="cfog")
    assert not found.verdict.trusted
    assert "no better than by chance" in found.verdict.reason or "too few" in found.verdict.reason


def test_a_wrong_pair_that_looks_similar_at_one_of_all_positions_is_not_trusted() -> None:
    optical, _ = pair(400, np.array([[1, 0, 9.25], [0, 1, -6.5], [0, 0, 1.0]]))
    _, stranger = pair(400, np.array([[1, 0, 9.25], [0, 1, -6.5], [0, 0, 1.0]]), seed=9)
    found = sdnet.register(optical, stranger, search="wide", measure="cfog")
    assert found.verdict.evidence > 15 and not found.verdict.trusted
    assert "of the fine tie points agree (at least 60% after a wide search" in found.verdict.reason


def test_images_without_structure_are_not_trusted() -> None:
    flat = np.full((256, 256), 90, np.uint8)
    found = sdnet.register(flat, flat)
    assert not found.verdict.trusted and found.transform is None and len(found.ties) == 0


def test_equal_input_gives_equal_bytes_with_any_number_of_threads() -> None:
    images, results = pair(EDGE, TRUTHS["affine"]), []
    threads = cv2.getNumThreads()
    try:
        for count in (1, 4):
            cv2.setNumThreads(count)
            found = sdnet.register(*images, measure="cfog")
            assert found.transform is not None
            results.append(found.transform.matrix.tobytes() + found.ties.sar.tobytes())
    finally:
        cv2.setNumThreads(threads)
    assert len(set(results)) == 1


def test_an_empty_half_of_the_sar_image_does_not_move_the_result() -> None:
    optical, sar = pair(EDGE, TRUTHS["affine"])
    sar[:, EDGE // 2 + 40 :] = 0
    found = sdnet.register(optical, sar, measure="cfog")
    assert found.verdict.trusted and found.transform is not None
    points = grid_points()[grid_points()[:, 1] < EDGE / 2]
    truth = Transform("affine", TRUTHS["affine"]).apply(points)
    assert np.linalg.norm(found.transform.apply(points) - truth, axis=1).mean() < 0.5


def test_16_bit_images_are_registered_as_their_8_bit_versions_are() -> None:
    optical, sar = pair(EDGE, TRUTHS["affine"])
    found = sdnet.register(optical, sar.astype(np.uint16) * 40 + 1000, measure="cfog")
    assert found.verdict.trusted and found.transform is not None
    assert error_px(found.transform, TRUTHS["affine"]) < 0.3


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("missing", [np.nan, np.inf, np.finfo(np.float32).min])
def test_one_pixel_without_a_measurement_is_empty_and_changes_no_other(missing, masked) -> None:
    sar = pair(EDGE, TRUTHS["affine"])[1].astype(np.float32) + 1
    spoiled = sar.copy()
    spoiled[7, 5] = missing
    whole, found = (
        image_from_array(pixels, valid=np.ones(sar.shape, bool) if masked else None)
        for pixels in (sar, spoiled)
    )
    assert np.argwhere(found.valid != whole.valid).tolist() == [[7, 5]]
    assert np.abs(found.grey.astype(int) - whole.grey).sum() <= 255


def test_the_search_starts_from_the_initial_transform() -> None:
    truth = turned(30, 1.1, (60, 40), EDGE)
    found = sdnet.register(
        *pair(EDGE, truth), initial=Transform("affine", turned(30, 1.1, (50, 52), EDGE)), measure="cfog"
    )
    assert found.verdict.trusted and found.transform is not None
    assert error_px(found.transform, truth) < 0.3


@pytest.mark.parametrize("finer", [2.0, 0.5])
def test_images_of_different_resolution_are_trusted_if_the_search_starts_with_it(finer) -> None:
    optical, sar = pair(2 * EDGE, turned(1, 1, (9, -7), 2 * EDGE))
    larger = finer > 1
    small = cv2.resize(optical if larger else sar, (EDGE, EDGE), interpolation=cv2.INTER_AREA)
    images = (small, sar) if larger else (optical, small)
    middle = (finer - 1) / 2  # a pixel covers several smaller ones
    start = affine([[finer, 0, middle], [0, finer, middle]])
    found = sdnet.register(*images, initial=start, measure="cfog")
    assert found.verdict.trusted and found.transform is not None
    area = abs(np.linalg.det(found.transform.matrix[:2, :2]))
    assert 0.95 < area / finer**2 < 1.05


@pytest.mark.parametrize(("times", "named"), [(2.5, "2.5"), (4, "4"), (1e6, "1e+06")])
def test_a_sar_image_with_much_larger_pixels_is_not_trusted_whatever_agrees(times, named) -> None:
    optical, _ = pair(EDGE, np.eye(3))
    found = sdnet.register(optical, optical, initial=affine([[1 / times, 0, 0], [0, 1 / times, 0]]))
    assert not found.verdict.trusted
    assert f"a SAR pixel is {named} times as long as an optical one (at most 2.1)" in found.verdict.reason


@pytest.mark.parametrize("scale", [1e-6, 0.1, 300, 1e8, 1e150])
def test_a_sar_image_within_a_few_optical_pixels_or_around_all_gives_no_match(scale) -> None:
    image = np.random.default_rng(0).integers(1, 255, (200, 200)).astype(np.uint8)
    start = affine([[scale, 0, 0], [0, scale, 0]])
    assert not sdnet.register(image, image, initial=start, measure="mind").verdict.trusted


def test_match_finds_given_points() -> None:
    points = grid_points(border=100)
    ties = sdnet.match(
        *pair(EDGE, TRUTHS["translation"]), points, transform=affine([[1, 0, 15], [0, 1, -20]])
    )
    assert len(ties) == len(points)
    assert np.abs(ties.sar - ties.optical - [-22.6, 17.3]).mean() < 0.3


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((64, 256), np.uint8), "is 256 x 64 px; give at least 128 x 128 px"),
        (np.zeros((256, 256), np.uint8), "is empty: it has no pixel with data"),
        (np.zeros((256, 256, 7), np.uint8), r"has shape \(256, 256, 7\)"),
        (np.zeros((256, 256), np.complex64), "has pixels of complex64"),
    ],
)
def test_an_image_that_cannot_be_used_is_refused(pixels, message) -> None:
    with pytest.raises(InputError, match=message):
        image_from_array(pixels)


def test_an_unknown_choice_is_refused_with_what_is_known() -> None:
    with pytest.raises(InputError, match='model is "spline"; it must be one of translation, affine'):
        sdnet.register(*pair(256, np.eye(3)), model="spline")  # type: ignore[arg-type]


def random_ties(seed: int, wrong: int) -> tuple[TiePoints, np.ndarray]:
    """60 exact tie points of a transform, and wrong ones."""
    rng = np.random.default_rng(seed)
    optical, truth = rng.uniform(0, 500, (60 + wrong, 2)), turned(4, 1.02, (8, 9), 500)
    sar = Transform("affine", truth).apply(optical)
    sar[60:] += rng.uniform(-70, 70, (wrong, 2))
    return TiePoints(optical, sar, np.full(len(sar), 0.3), np.zeros(len(sar))), truth


def hills(places: np.ndarray, peaks: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Surfaces of 25 x 25 entries around SAR places: a hill at each SAR peak, 2 entries wide."""
    steps = np.stack(np.meshgrid(np.arange(-12, 13), np.arange(-12, 13), indexing="ij"), axis=-1)
    offsets = (peaks - places) @ np.linalg.inv(frame).T
    apart = steps - offsets[:, None, None]
    return np.exp(-0.5 * (apart**2).sum(axis=-1) / 2.0**2).astype(np.float32)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 40), st.sampled_from(["translation", "affine", "homography"]))
def test_a_joint_fit_ignores_surfaces_with_a_wrong_peak(seed, wrong, model) -> None:
    rng = np.random.default_rng(seed)
    optical, frame = rng.uniform(0, 500, (60 + wrong, 2)), np.array([[0.9, 0.2], [-0.1, 1.1]])
    truth = np.eye(3) if model == "translation" else turned(0.3, 1.003, (0, 0), 500)
    truth = truth + np.array([[0, 0, 1.7], [0, 0, -2.2], [0, 0, 0]])
    if model == "homography":
        truth[2, :2] = 2e-6, -3e-6
    peaks = Transform("homography", truth).apply(optical)
    peaks[60:] += rng.uniform(-10, 10, (wrong, 2))
    frames = np.broadcast_to(frame, (len(optical), 2, 2))
    surfaces = Surfaces(optical, optical, frames, hills(optical, peaks, frame))
    found = fit_jointly(surfaces, IDENTITY, model)
    assert found is not None and found.model == model
    assert error_px(found, truth, 500) < (0.01 if not wrong else 0.35)


def test_too_few_tie_points_or_surfaces_give_no_fit() -> None:
    optical = random_ties(0, 0)[0].optical[:5]
    frames, scores = np.zeros((5, 2, 2)) + np.eye(2), np.zeros((5, 13, 13), np.float32)
    assert sample_affine(random_ties(0, 0)[0].take(np.arange(5)), 8.0) is None
    assert fit_jointly(Surfaces(optical, optical, frames, scores), IDENTITY, "affine") is None


def test_slope_and_curvature_of_a_surface_are_its_derivatives() -> None:
    rng = np.random.default_rng(3)
    frames = np.eye(2) + rng.uniform(-0.2, 0.2, (20, 2, 2))
    optical, scores = rng.uniform(0, 99, (20, 2)), rng.uniform(-1, 1, (20, 13, 13)).astype(np.float32)
    surfaces, step = Surfaces(optical, optical, frames, scores), 1e-4
    sar = optical + rng.uniform(-2, 2, (20, 2))
    _, slope, curvature = surfaces.at(sar)
    for axis in (0, 1):
        ahead, behind = (surfaces.at(sar + sign * step * np.eye(2)[axis]) for sign in (1, -1))
        np.testing.assert_allclose((ahead[0] - behind[0]) / (2 * step), slope[:, axis], atol=1e-5)
        np.testing.assert_allclose((ahead[1] - behind[1]) / (2 * step), curvature[:, :, axis], atol=1e-3)


def test_cfog_mind_correlates_as_the_mean_of_both_measures_does() -> None:
    image = ground(200, 200).astype(np.uint8)
    length = [np.square(measure(image)).sum(axis=0) for measure in (cfog, mind, cfog_mind)]
    np.testing.assert_allclose(length[2], (length[0] + length[1]) / 2, rtol=1e-4, atol=1e-6)


def test_evidence_rises_with_agreement_and_is_none_for_chance() -> None:
    found = [evidence(64, inliers, 8.0, 72) for inliers in range(65)]
    assert found[:6] == [0.0] * 6 and found == sorted(found) and found[-1] > 100


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000))
def test_a_transform_survives_json_and_its_jacobian_is_its_slope(seed) -> None:
    rng = np.random.default_rng(seed)
    grid = ShiftGrid(64.0, rng.uniform(-2, 2, (7, 7, 2)))
    transform = Transform("piecewise", turned(rng.uniform(-9, 9), 1.1, (5, 6), EDGE), grid)
    points = rng.uniform(-50, EDGE + 50, (20, 2))
    back = transform_from_dict(transform.as_dict())
    np.testing.assert_array_equal(back.apply(points), transform.apply(points))
    step = transform.apply(points[:1] + [1, 0]) - transform.apply(points[:1] - [1, 0])
    np.testing.assert_allclose(transform.jacobian(points[0])[:, 0], step[0] / 2, atol=1e-9)


def test_local_shifts_are_exact_at_nodes_and_mean_between_two() -> None:
    shifts = np.arange(18, dtype=float).reshape(3, 3, 2)
    found = ShiftGrid(10.0, shifts).at(np.array([[0, 0], [10, 20], [5, 0], [-40, 99]], float))
    np.testing.assert_allclose(
        found, [shifts[0, 0], shifts[1, 2], (shifts[0, 0] + shifts[1, 0]) / 2, shifts[0, 2]]
    )


def test_warping_undoes_the_transform_and_leaves_what_is_outside_empty() -> None:
    scene = ground(300, 300).astype(np.uint8)
    moved = warp(scene, affine([[1, 0, 250], [0, 1, 0]]), (300, 300), empty=7)
    np.testing.assert_array_equal(moved[:, :50], scene[:, 250:])
    assert (moved[:, 51:] == 7).all()
    colour = np.dstack([scene] * 3)
    np.testing.assert_array_equal(warp(colour, IDENTITY, (300, 300)), colour)
