"""Views of pairs: both patches alike, and a function of seed, step and position alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdnet.config import PatchConfig, Recipe
from sdnet.data.augment import TURNS, Views, Where, check_edge, check_patches, middle, uniform
from sdnet.data.store import PatchFile
from sdnet.errors import InputError
from sdnet.recipes import RECIPES, edge_needed, patches_for

EVERYTHING = Recipe(flips=True, rotation_deg=10.0, scale=0.12, gamma=0.5)


def stored(number: int = 6, edge: int = 96) -> np.ndarray:
    """Pairs whose two patches are the same picture."""
    side = np.random.default_rng(0).integers(0, 256, (number, edge, edge), np.uint8)
    return np.concatenate([side, side], axis=2)


def file_of(images: np.ndarray, shifts: np.ndarray | None = None) -> PatchFile:
    return PatchFile(Path("train.npz"), images, np.ones(len(images), np.int32), shifts)


def views(
    recipe: Recipe,
    images: np.ndarray,
    where: Where,
    indices: np.ndarray,
    shifts: np.ndarray | None = None,
) -> np.ndarray:
    out = np.empty((len(indices), 64, 128), np.uint8)
    Views(recipe, file_of(images, shifts)).fill(where, indices, out)
    return out


@pytest.mark.parametrize("edge", [64, 96, 98])
def test_a_recipe_that_changes_nothing_sees_the_middle_of_each_patch(edge):
    images = stored(edge=edge)
    found = views(Recipe(), images, Where(3, 0), np.arange(6))
    np.testing.assert_array_equal(found, middle(images))
    begin = (edge - 64) // 2
    np.testing.assert_array_equal(found[0, :, :64], images[0, begin : begin + 64, begin : begin + 64])


def test_both_patches_of_a_pair_are_turned_and_scaled_alike():
    recipe = Recipe(flips=True, rotation_deg=10.0, scale=0.12)
    found = views(recipe, stored(), Where(0, 0), np.arange(6))
    np.testing.assert_array_equal(found[:, :, :64], found[:, :, 64:])


def test_flips_are_the_eight_exact_turns_of_a_square():
    image = stored(1, 64)
    square = image[0, :, :64]
    turns = {np.rot90(side, quarter).tobytes() for side in (square, square.T) for quarter in range(4)}
    seen = views(Recipe(flips=True), image, Where(0, 0), np.zeros(200, int))
    assert {view[:, :64].tobytes() for view in seen} == turns
    assert len(np.unique(TURNS, axis=0)) == 8


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_a_view_depends_on_the_step_and_the_place_in_the_global_batch_not_on_the_slice(step, cut):
    images, indices = stored(), np.arange(6)
    whole = views(EVERYTHING, images, Where(step, 0), indices)
    parts = [
        views(EVERYTHING, images, Where(step, 0), indices[:cut]),
        views(EVERYTHING, images, Where(step, cut), indices[cut:]),
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert (views(EVERYTHING, images, Where(step + 1, 0), indices) != whole).any()


def test_a_scenes_shift_brings_the_sar_patch_back_onto_the_optical_one():
    images = stored()
    images[:, :, 96:] = np.roll(images[:, :, :96], (3, -2), axis=(1, 2))
    shifts = np.tile(np.array([3, -2], np.int16), (6, 1))
    found = views(Recipe(align_scenes=True), images, Where(0, 0), np.arange(6), shifts=shifts)
    np.testing.assert_array_equal(found[:, :, 64:], found[:, :, :64])


def test_jitter_moves_the_sar_patch_alone_and_by_no_more_than_it_may():
    image = np.zeros((1, 72, 144), np.uint8)
    image[0, 36, [36, 108]] = 255
    seen = views(Recipe(jitter_px=3.0), image, Where(0, 0), np.zeros(100, int))
    assert (seen[:, 32, 32] == 255).all()
    rows, columns = np.nonzero(seen[:, :, 64:].max(axis=0))
    assert rows.min() >= 29 and rows.max() <= 35 and columns.min() >= 29 and columns.max() <= 35
    assert np.ptp(rows) >= 4 and np.ptp(columns) >= 4


def test_random_numbers_are_uniform_and_differ_by_every_argument():
    positions = np.arange(10_000)
    drawn = np.stack([uniform(*key, positions, draw) for key in ((0, 0), (0, 1), (1, 0)) for draw in (0, 1)])
    assert ((drawn >= 0) & (drawn < 1)).all()
    np.testing.assert_allclose(np.histogram(drawn, 10)[0] / drawn.size, 0.1, atol=0.01)
    np.testing.assert_allclose(np.corrcoef(drawn), np.eye(6), atol=0.05)


@pytest.mark.parametrize(
    ("recipe", "edge", "needed"),
    [
        (Recipe(flips=True), 62, 64),
        (Recipe(rotation_deg=10.0, scale=0.12), 64, 84),
        (Recipe(jitter_px=3.0), 68, 70),
    ],
)
def test_patches_that_are_too_small_for_a_recipe_are_refused(recipe, edge, needed):
    assert edge_needed(recipe) == needed
    with pytest.raises(
        InputError, match=f"train.npz holds patches of {edge} px and the recipe needs {needed}"
    ):
        check_edge(recipe, edge, "train.npz")
    check_edge(recipe, needed, "train.npz")


def test_a_recipe_that_aligns_scenes_needs_their_shifts():
    with pytest.raises(InputError, match="train.npz holds no shifts of scenes"):
        Views(Recipe(align_scenes=True), file_of(stored()))


@pytest.mark.parametrize("shift", [65, -32768])
def test_a_shift_that_moves_the_view_off_the_patch_is_refused(shift):
    shifts = np.zeros((6, 2), np.int16)
    shifts[4, 1] = shift
    with pytest.raises(InputError, match=f"has a shift of {shift} px; it must be from -64 to 64: correct"):
        check_patches(Recipe(align_scenes=True), replace(file_of(stored()), shifts=shifts))


def test_a_recipe_with_runs_of_scenes_needs_to_know_them():
    with pytest.raises(InputError, match="train.npz does not say which scene each patch shows"):
        check_patches(Recipe(scene_run=5), file_of(stored()))


def test_a_recipe_that_measures_statistics_needs_enough_patches():
    recipe = Recipe(normalisation="modality", measured_statistics=True)
    with pytest.raises(InputError, match="holds 6 pairs, too few to measure statistics; give at least 64"):
        check_patches(recipe, file_of(stored()))


def test_prepared_patches_are_as_large_as_the_recipe_needs_and_never_smaller_than_configured():
    assert patches_for(RECIPES["sen1_2"], PatchConfig()) == PatchConfig()
    assert patches_for(RECIPES["modern"], PatchConfig(per_pair=5)) == PatchConfig(
        per_pair=5, stored_size=96, align=True
    )
    assert patches_for(RECIPES["modern"], PatchConfig(stored_size=128)).stored_size == 128
