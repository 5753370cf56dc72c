"""One shift per scene, found without labels, and refused where it cannot be trusted."""

import numpy as np
import pytest

from sdnet.preparation.alignment import REACH_PX, agreement, scene_shift
from sdnet.preparation.synthetic import make_pair


def moved(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    return np.roll(image, (rows, columns), axis=(0, 1))


def surfaces(shift: tuple[int, int], pairs: int = 4) -> list[np.ndarray]:
    """Of synthetic pairs whose SAR image was moved."""
    made = [make_pair(0, 0, number) for number in range(pairs)]
    return [agreement(optical[:, :, 1], moved(sar, *shift)) for optical, sar in made]


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-5, 4)])
def test_the_shift_of_a_scene_is_that_of_its_sar_images(shift):
    found = scene_shift(surfaces(shift))
    assert found.trusted
    assert np.hypot(found.rows - shift[0], found.columns - shift[1]) <= 1


def test_an_image_agrees_best_with_itself_moved_where_it_was_moved_to():
    image = make_pair(0, 0, 0)[1]
    surface = agreement(image, moved(image, 4, -7))
    assert np.unravel_index(surface.argmax(), surface.shape) == (REACH_PX + 4, REACH_PX - 7)
    assert surface.max() == pytest.approx(1, abs=0.2)


def test_pairs_that_do_not_match_give_no_shift():
    pairs = [(make_pair(0, 0, number)[0], make_pair(1, 1, number)[1]) for number in range(8)]
    found = scene_shift([agreement(optical[:, :, 1], sar) for optical, sar in pairs])
    assert not found.trusted
    assert (found.rows, found.columns) == (0, 0)
    assert "apart" in found.reason or "at the limit" in found.reason


def test_a_scene_needs_two_pairs_with_texture():
    blank = np.full((2 * REACH_PX + 1,) * 2, np.nan, np.float32)
    found = scene_shift([surfaces((0, 0), pairs=1)[0], blank])
    assert found.reason == "it has 1 usable pair(s), and a check of a shift needs two"


def test_a_shift_at_the_limit_of_the_search_is_not_trusted():
    found = scene_shift([edge_peak()] * 4)
    assert found.reason == "its best shift is at the limit of 12 px"


def test_a_clearly_misregistered_pair_is_listed_by_its_number():
    blank = np.full((2 * REACH_PX + 1,) * 2, np.nan, np.float32)
    stray = peak_at(9, 9)
    found = scene_shift([peak_at(1, 0), blank, peak_at(1, 0), peak_at(1, 0), stray * 0.5, peak_at(1, 0)])
    assert (found.rows, found.columns) == (1, 0)
    assert found.misregistered == (4,)


def peak_at(rows: int, columns: int) -> np.ndarray:
    surface = np.random.default_rng(0).normal(0, 0.01, (2 * REACH_PX + 1,) * 2)
    surface[REACH_PX + rows, REACH_PX + columns] = 1
    return surface


def edge_peak() -> np.ndarray:
    return peak_at(REACH_PX, 0)


def test_a_constant_image_agrees_with_nothing():
    surface = agreement(np.full((64, 64), 7, np.uint8), make_pair(0, 0, 0)[1][:64, :64])
    assert np.abs(surface).max() < 1e-6
