"""The initial weights, the learning rate, and the printed lines."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdnet.cli.messages import accuracy_line, epoch_line
from sdnet.config import Recipe
from sdnet.network.model import SDNet
from sdnet.parameters import weights
from sdnet.training.schedule import learning_rate


@pytest.fixture(scope="module")
def net() -> SDNet:
    return SDNet(Recipe(), training=True)


def test_convolutions_start_orthogonal_with_gain(net):
    state = weights.initial(net, seed=0)
    for name in ("features_opt.3.weight", "embedding.14.weight", "lower_sar.0.weight"):
        rows = state[name].reshape(len(state[name]), -1).astype(np.float64)
        np.testing.assert_allclose(rows @ rows.T, 0.36 * np.eye(len(rows)), atol=1e-6)
    tall = state["features_opt.0.weight"].reshape(32, 9).astype(np.float64)
    np.testing.assert_allclose(tall.T @ tall, 0.36 * np.eye(9), atol=1e-6)


def test_transposed_convolutions_start_uniform_within_the_fan_in(net):
    state = weights.initial(net, seed=0)
    for name, bound in (("decoder.0", 1 / 8), ("decoder.4", 1 / 8), ("decoder.8", 1 / 2)):
        for values in (state[f"{name}.weight"], state[f"{name}.bias"]):
            assert 0 < np.abs(values).max() <= bound
    assert state["decoder.4.weight"].std() == pytest.approx(1 / 8 / np.sqrt(3), rel=0.1)


def test_the_start_is_a_function_of_the_seed(net):
    first, again, other = (weights.initial(net, seed) for seed in (0, 0, 1))
    assert all((first[name] == again[name]).all() for name in first)
    assert (first["embedding.1.weight"] != other["embedding.1.weight"]).any()
    assert (first["features_opt.0.weight"] != first["features_sar.0.weight"]).any()


@given(st.integers(1, 1000), st.floats(1e-6, 1))
def test_the_rate_falls_in_equal_steps_from_base_to_zero(total, base):
    rates = [learning_rate(base, step, total) for step in range(total + 1)]
    assert rates[0] == base
    assert rates[-1] == 0
    np.testing.assert_allclose(np.diff(rates), -base / total, atol=1e-12)


def test_the_rate_is_never_below_zero():
    assert learning_rate(0.004, 7, 6) == 0


def test_lines_are_what_users_of_the_published_scripts_look_for():
    line = epoch_line(1, 20, seconds=590.5, steps=1167, loss=0.762, learning_rate=0.0038)
    assert re.fullmatch(
        r"epoch: \[  1/ 20\], epoch time: 590\.500 s, steps:  1167, per step time: 505\.998 ms, "
        r"avg loss: 0\.762000, lr:\[0\.00380000\]",
        line,
    )
    assert accuracy_line(0.00914202, 0.97957901) == "Accuracy(FPR95): 0.00914202  Acc:0.97957901"
