"""Intervals, thresholds and retrieval against slow code that follows their definitions."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdnet.cli.messages import assessment_lines
from sdnet.data.places import Places
from sdnet.errors import InputError
from sdnet.evaluation.assessment import assess, distances_of
from sdnet.evaluation.bootstrap import fpr95_interval
from sdnet.evaluation.metrics import accuracy_at, best_threshold, fpr95
from sdnet.evaluation.retrieval import draw_hard_negatives, mean_average_precision, partner_ranks, recall_at_1

LEVELS = [0.0, 0.25, 0.5, 1.0, 1.5]  # few different values, so that ties are common
PAIRS = st.lists(st.tuples(st.sampled_from(LEVELS), st.integers(0, 1), st.integers(0, 3)), min_size=2).filter(
    lambda pairs: len({label for _, label, _ in pairs}) == 2
)


def columns(pairs: list[tuple[float, int, int]]) -> tuple[np.ndarray, ...]:
    return tuple(np.array(column) for column in zip(*pairs, strict=True))


@given(PAIRS)
def test_the_best_threshold_calls_as_many_pairs_right_as_any(pairs):
    distances, labels, _ = columns(pairs)
    threshold = best_threshold(distances, labels)
    found = accuracy_at(threshold, distances, labels)
    rates = {level: accuracy_at(level, distances, labels) for level in distances.tolist()}
    assert found == max(rates.values())
    assert threshold == min(level for level, rate in rates.items() if rate == found)


@given(PAIRS, st.randoms())
def test_the_order_of_the_pairs_never_changes_an_interval(pairs, random):
    distances, labels, scene = columns(pairs)
    order = random.sample(range(len(pairs)), len(pairs))
    assert fpr95_interval(distances, labels, scene) == fpr95_interval(
        distances[order], labels[order], scene[order]
    )


@given(PAIRS)
def test_an_interval_of_one_scene_has_no_width(pairs):
    distances, labels, _ = columns(pairs)
    rate = fpr95(distances, labels)
    assert fpr95_interval(distances, labels, np.zeros(len(labels), int)) == (rate, rate)


def test_an_interval_holds_the_percentiles_of_drawing_whole_scenes_again():
    rng = np.random.default_rng(0)
    scene, labels = np.repeat(np.arange(5), 40), np.tile([1, 0], 100)
    distances = rng.integers(0, 50, 200) + 20 * (labels == 0) + 3.0 * scene
    draws = np.random.Generator(np.random.PCG64(3)).multinomial(5, [0.2] * 5, 1000)
    rates = []
    for drawn in draws:
        rows = np.concatenate([np.flatnonzero(scene == s) for s in np.repeat(np.arange(5), drawn)])
        rates.append(fpr95(distances[rows], labels[rows]))
    expected = np.percentile(rates, (2.5, 97.5))
    np.testing.assert_array_equal(fpr95_interval(distances, labels, scene, seed=3), expected)


@st.composite
def descriptors(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, Places]:
    """Descriptors of whole numbers, where ties are common, of two scenes with two tiles each."""
    number = draw(st.integers(2, 12))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    opt, sar = rng.integers(0, 3, (2, number, 2)).astype(np.float32)
    tile = np.sort(rng.integers(0, 4, number))
    centre = np.stack([32 + 16 * rng.permutation(number), 32 + rng.integers(0, 5, number)], axis=1)
    return opt, sar, Places(("ROIs1_fall_1", "other"), tile // 2, tile, centre)


def shows_other_ground(places: Places, one: int, other: int) -> bool:
    off = np.abs(places.centre[one] - places.centre[other]).max()
    return places.scene[one] == places.scene[other] and (places.tile[one] != places.tile[other] or off >= 64)


@given(descriptors())
def test_a_rank_counts_the_rivals_of_the_scene_that_are_as_near_as_the_partner(case):
    opt, sar, places = case
    for index, rank in enumerate(partner_ranks(opt, sar, places)):
        as_near = [
            other
            for other in range(len(places))
            if shows_other_ground(places, index, other)
            and ((opt[index] - sar[other]) ** 2).sum() <= ((opt[index] - sar[index]) ** 2).sum()
        ]
        assert rank == 1 + len(as_near)


@given(descriptors(), st.integers(0, 5))
def test_a_hard_negative_shows_other_ground_of_the_same_scene(case, seed):
    _, _, places = case
    for index, drawn in enumerate(draw_hard_negatives(places, seed)):
        rivals = [other for other in range(len(places)) if shows_other_ground(places, index, other)]
        assert drawn in rivals if rivals else drawn == -1


def test_recall_and_precision_of_ranks():
    ranks = np.array([1, 1, 2, 4])
    assert recall_at_1(ranks) == 0.5
    assert mean_average_precision(ranks) == (1 + 1 + 1 / 2 + 1 / 4) / 4


@pytest.fixture
def case() -> tuple[np.ndarray, np.ndarray, np.ndarray, Places]:
    """20 matches and 20 non-matches of two seasons."""
    rng = np.random.default_rng(0)
    opt = rng.standard_normal((40, 4)).astype(np.float32)
    sar = (opt + rng.normal(0, 0.3, (40, 4))).astype(np.float32)
    sar[20:] = sar[rng.permutation(20)]
    scene = np.tile(np.repeat([0, 1, 2, 3], 5), 2)
    centre = np.tile(np.stack([32 + 70 * (np.arange(20) % 5), np.full(20, 32)], 1), (2, 1))
    names = ("ROIs1_fall_1", "ROIs1_fall_2", "ROIs1_spring_1", "harbour")
    return opt, sar, np.repeat([1, 0], 20), Places(names, scene, scene, centre)


def test_an_assessment_says_the_same_whatever_the_order_of_the_pairs(case):
    opt, sar, labels, places = case
    order = np.random.default_rng(1).permutation(40)
    shuffled = replace(
        places, scene=places.scene[order], tile=places.tile[order], centre=places.centre[order]
    )
    expected = assess(opt, sar, labels, places, threshold=1.0)
    found = assess(opt[order], sar[order], labels[order], shuffled, threshold=1.0)
    # The draw depends on the order of the rivals in the file.
    assert found.pop("hard_negatives")["pairs"] == expected.pop("hard_negatives")["pairs"]
    assert found == expected


def test_an_assessment_separates_scenes_and_seasons(case):
    opt, sar, labels, places = case
    found = assess(opt, sar, labels, places)
    distances = distances_of(opt, sar)
    fall = places.scene < 2
    assert list(found["seasons"]) == ["fall", "spring"]
    assert found["seasons"]["fall"]["fpr95"] == fpr95(distances[fall], labels[fall])
    assert found["scenes"]["harbour"]["matches"] == 5
    low, high = found["fpr95_interval"]
    assert low <= found["fpr95"] <= high


def test_without_places_an_assessment_has_the_published_rates_alone(case):
    opt, sar, labels, _ = case
    assert assess(opt, sar, labels).keys() == {"pairs", "fpr95", "accuracy"}


def test_places_that_do_not_fit_each_other_are_refused():
    with pytest.raises(InputError, match="must be"):
        Places(("a",), np.zeros(3, int), np.zeros(3, int), np.zeros((2, 2), int))
    with pytest.raises(InputError, match="scene 1 of 1"):
        Places(("a",), np.array([0, 1]), np.zeros(2, int), np.zeros((2, 2), int))


def test_a_report_names_every_rate_and_has_a_row_for_each_season_and_scene():
    turn = np.deg2rad([0, 10, 90, 100, 0, 10, 90, 100])
    sar = np.column_stack([np.cos(turn), np.sin(turn)]).astype(np.float32)
    opt = np.concatenate([sar[:4], sar[[2, 3, 0, 1]]])  # four matches without error, four non-matches
    scene = np.array([0, 0, 1, 1, 1, 1, 0, 0])
    centre = np.array([[0, 0], [0, 90]] * 4)
    places = Places(("ROIs1_fall_1", "harbour"), scene, np.arange(8), centre)
    lines = assessment_lines(assess(opt, sar, np.repeat([1, 0], 4), places, threshold=0.1))
    assert lines == [
        "FPR95 0.00000000  accuracy 1.00000000  pairs 8  interval 0.0000 to 0.0000",
        "accuracy 1.0000 when distances up to 0.1000, the best of the training pairs, are called matches",
        "within a scene: recall at 1 1.0000, mean average precision 1.0000",
        "non-matches of the same scene: FPR95 0.0000, accuracy 1.0000",
        "season or scene  matches   FPR95  accuracy  recall at 1",
        "fall                   2  0.0000    1.0000       1.0000",
        "ROIs1_fall_1           2  0.0000    1.0000       1.0000",
        "harbour                2  0.0000    1.0000       1.0000",
    ]
    strange = replace(places, scenes=("a\nb", "\x1b[31m\udcd6"))
    assert [
        line.split()[0] for line in assessment_lines(assess(opt, sar, np.repeat([1, 0], 4), strange))[-2:]
    ] == [
        "a\\nb",
        "\\x1b[31m\\xd6",
    ]
    assert assessment_lines(assess(opt, sar, np.repeat([1, 0], 4))) == [
        "FPR95 0.00000000  accuracy 1.00000000  pairs 8"
    ]
