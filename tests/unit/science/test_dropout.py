"""Dropout is a pure function of where it is used."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from sdnet.network.dropout import ReplayedDropout

SHAPE = (4, 8, 8)
ELEMENTS = np.prod(SHAPE)


@pytest.fixture(scope="module")
def dropout() -> ReplayedDropout:
    return ReplayedDropout(0.3, seed=5, shape=SHAPE)


def kept(dropout: ReplayedDropout, batch: int = 16, step: int = 0, first: int = 0, modality: int = 0):
    ones = Tensor(np.ones((batch, *SHAPE), np.float32))
    return dropout(ones, Tensor(step, ms.int32), Tensor(first, ms.int32), modality).asnumpy()


def lowbias32(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.uint32)
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
        x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def test_the_device_computes_the_hash_that_unsigned_arithmetic_defines(dropout):
    sample = np.arange(16, dtype=np.uint32)
    key = lowbias32(lowbias32(lowbias32(np.array([5], np.uint32)) + np.uint32(9)) + 2 * sample + np.uint32(1))
    draw = lowbias32(key[:, None] + lowbias32(np.arange(ELEMENTS))) >> np.uint32(8)
    expected = (draw >= round(0.3 * 2**24)).reshape(16, *SHAPE)
    np.testing.assert_array_equal(kept(dropout, step=9, modality=1) > 0, expected)


def test_a_step_replays_and_other_steps_and_modalities_do_not(dropout):
    first = kept(dropout, step=3)
    np.testing.assert_array_equal(kept(dropout, step=3), first)
    assert (kept(dropout, step=4) != first).any()
    assert (kept(dropout, step=3, modality=1) != first).any()


def test_a_sample_drops_the_same_whichever_slice_holds_it(dropout):
    whole = kept(dropout, batch=16)
    np.testing.assert_array_equal(kept(dropout, batch=8, first=8), whole[8:])


def test_the_share_of_zeros_is_the_probability_and_the_mean_stays(dropout):
    values = np.concatenate([kept(dropout, step=step) for step in range(8)])
    deviation = np.sqrt(0.3 * 0.7 / values.size)
    assert abs((values == 0).mean() - 0.3) < 4 * deviation
    np.testing.assert_allclose(values[values > 0], 1 / 0.7, rtol=1e-6)


def test_samples_and_elements_are_dropped_independently(dropout):
    zeros = (kept(dropout, batch=64) == 0).reshape(64, ELEMENTS)
    by_sample, by_element = np.corrcoef(zeros), np.corrcoef(zeros.T)
    for correlations, draws in ((by_sample, ELEMENTS), (by_element, 64)):
        pairs = correlations[np.triu_indices(len(correlations), 1)]
        # Of independent draws, correlations scatter with a standard deviation of 1 / sqrt(draws).
        assert abs(pairs.std() * np.sqrt(draws) - 1) < 0.1


def test_without_probability_nothing_changes():
    np.testing.assert_array_equal(kept(ReplayedDropout(0.0, 5, SHAPE)), np.ones((16, *SHAPE)))
