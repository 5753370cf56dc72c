"""The parts of the network that the published one does not have."""

from typing import Any

import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from sdnet import weights
from sdnet.config import Recipe
from sdnet.errors import InputError
from sdnet.model import SDNet, standardise
from sdnet.normalisation import InstanceNorm
from sdnet.orientation import SIGMA_OPTICAL, OrientationChannels


class Gradient(nn.Cell):
    """The gradient of a weighted sum of what a cell gives, by its input."""

    def __init__(self, cell: nn.Cell):
        super().__init__()
        self.cell = cell
        self.gradient = ops.grad(self.weigh, 0)

    def weigh(self, x: Tensor, weight: Tensor) -> Tensor:
        return (self.cell(x) * weight).sum()

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.gradient(x, weight)


def test_instance_norm_and_its_gradient_are_those_of_the_formula_also_when_called_again():
    rng = np.random.default_rng(0)
    x, weight = rng.normal(3, 2, (2, 4, 5, 6, 7)).astype(np.float32)
    centred = x - x.mean((2, 3), keepdims=True)
    scale = 1 / np.sqrt((centred**2).mean((2, 3), keepdims=True) + 1e-5)
    normal = centred * scale
    off = weight - weight.mean((2, 3), keepdims=True)
    expected = scale * (off - normal * (weight * normal).mean((2, 3), keepdims=True))
    forward, backward = InstanceNorm(), Gradient(InstanceNorm())
    for _ in range(3):
        np.testing.assert_allclose(forward(Tensor(x)).asnumpy(), normal, rtol=0, atol=2e-6)
        np.testing.assert_allclose(backward(Tensor(x), Tensor(weight)).asnumpy(), expected, atol=2e-6)


def test_orientation_channels_answer_to_edges_that_run_their_way():
    rows, columns = np.mgrid[:64, :64]
    stripes = [
        np.sin(columns / 3),
        np.sin((columns + rows) / 4),
        np.sin(rows / 3),
        np.sin((rows - columns) / 4),
    ]
    x = standardise(Tensor(np.array(stripes, np.float32)[:, None]))
    strength = OrientationChannels(4, SIGMA_OPTICAL)(x).asnumpy().mean((2, 3))
    assert strength.argmax(axis=1).tolist() == [0, 1, 2, 3]


def test_orientation_channels_do_not_see_the_sign_of_contrast():
    x = standardise(Tensor(np.random.default_rng(0).normal(size=(2, 1, 64, 64)).astype(np.float32)))
    cell = OrientationChannels(6, SIGMA_OPTICAL)
    np.testing.assert_allclose(cell(x).asnumpy(), cell(-x).asnumpy(), atol=1e-6)
    assert np.abs(cell(x * 0).asnumpy()).max() < 1e-5


def layers(**fields: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of what a network owns, without the fixed factors of its batch norms."""
    shapes = weights.shapes(SDNet(Recipe(**fields), training=True))
    return {name: shape for name, shape in shapes.items() if not name.endswith(("gamma", "beta"))}


def test_only_the_published_objective_has_heads():
    missing = layers().keys() - layers(objective="contrastive").keys()
    assert {name.split(".")[0] for name in missing} == {"lower_opt", "lower_sar", "decoder"}


def test_instances_have_no_statistics_and_each_modality_may_have_its_own():
    assert [name for name in layers(normalisation="instance") if "moving" in name] == []
    own = layers(normalisation="modality")
    assert own["embedding.15.opt.moving_mean"] == own["embedding.15.sar.moving_mean"] == (128,)
    assert "embedding.15.moving_mean" not in own


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("objective", "hardnet"),
        ("normalisation", "group"),
        ("orientation_channels", -1),
        ("rotation_deg", 46.0),
        ("scale", float("nan")),
        ("jitter_px", -0.5),
        ("gamma", 3.0),
        ("contrastive_temperature", 0.0),
    ],
)
def test_a_recipe_refuses_what_it_does_not_know(field, value):
    with pytest.raises(InputError, match=f"{field} is "):
        Recipe(**{field: value})
