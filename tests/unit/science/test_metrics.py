"""FPR95 and accuracy against slow code that follows their definitions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdnet.errors import InputError
from sdnet.evaluation.metrics import accuracy, fpr95

# Few different distances, so that ties are common.
PAIRS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.5]), st.integers(0, 1)), min_size=2
).filter(lambda pairs: len({label for _, label in pairs}) == 2)


def arrays(pairs: list[tuple[float, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([d for d, _ in pairs]), np.array([label for _, label in pairs])


@given(PAIRS)
def test_fpr95_is_the_least_rate_of_a_threshold_that_keeps_95_percent(pairs):
    matches = [d for d, label in pairs if label]
    others = [d for d, label in pairs if not label]
    rates = [
        Fraction(sum(d <= threshold for d in others), len(others))
        for threshold, _ in pairs
        if 100 * sum(d <= threshold for d in matches) >= 95 * len(matches)
    ]
    assert fpr95(*arrays(pairs)) == float(min(rates))


@given(PAIRS)
def test_accuracy_calls_the_nearest_matches_and_non_matches_first_among_ties(pairs):
    num_matches = sum(label for _, label in pairs)
    called = sorted(pairs)[:num_matches]
    right = sum(label for _, label in called) + sum(1 - label for _, label in sorted(pairs)[num_matches:])
    assert accuracy(*arrays(pairs)) == right / len(pairs)


@given(PAIRS, st.randoms())
def test_the_order_of_the_pairs_never_matters(pairs, random):
    shuffled = random.sample(pairs, len(pairs))
    assert fpr95(*arrays(pairs)) == fpr95(*arrays(shuffled))
    assert accuracy(*arrays(pairs)) == accuracy(*arrays(shuffled))


def test_twenty_matches_need_nineteen():
    distances = np.r_[np.arange(20.0), 18.5]
    labels = np.r_[np.ones(20, int), 0]
    assert fpr95(distances, labels) == 0.0


def test_a_tied_non_match_is_a_false_positive():
    assert fpr95(np.array([1.0, 1.0]), np.array([1, 0])) == 1.0


@pytest.mark.parametrize("rate", [fpr95, accuracy])
@pytest.mark.parametrize(
    ("distances", "labels", "message"),
    [
        ([1.0, 2.0], [1, 1], "of 2 pairs 2 are matches"),
        ([1.0, 2.0], [0, 0], "of 2 pairs 0 are matches"),
        ([1.0, np.nan], [0, 1], "distance 1 is nan"),
        ([np.inf, 1.0], [0, 1], "distance 0 is inf"),
        ([1.0, 2.0], [0, 2], "labels: 2 is no label"),
        ([1.0, 2.0], [0], "do not match"),
        ([], [], "of 0 pairs 0 are matches"),
    ],
)
def test_what_has_no_rate_is_refused(rate, distances, labels, message):
    with pytest.raises(InputError, match=message):
        rate(np.array(distances), np.array(labels))
