"""The parts of the network that the published network lacks."""

from typing import Any

import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from sdnet.config import Recipe
from sdnet.errors import InputError
from sdnet.network.model import Embedder, SDNet, standardise
from sdnet.network.normalisation import FilterResponseNorm, GroupNorm, InstanceNorm, ThresholdedUnit
from sdnet.network.orientation import SIGMA_OPTICAL, OrientationChannels
from sdnet.parameters import weights

pytestmark = pytest.mark.networks


class Gradient(nn.Cell):
    """The gradient of a weighted sum of a cell's outputs, by its input."""

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


def with_values(cell: nn.Cell, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Give a cell factors and offsets other than 1 and 0; returns them."""
    for parameter in (cell.gamma, cell.beta):
        parameter.set_data(Tensor(rng.normal(1, 0.5, parameter.shape).astype(np.float32)))
    return cell.gamma.asnumpy(), cell.beta.asnumpy()


def test_group_norm_and_its_gradient_are_those_of_the_formula():
    rng = np.random.default_rng(1)
    x, weight = rng.normal(3, 2, (2, 4, 16, 6, 7)).astype(np.float32)
    cell = GroupNorm(16)
    gamma, beta = with_values(cell, rng)
    grouped = x.reshape(4, 2, -1)  # 2 groups of 8 channels
    centred = grouped - grouped.mean(2, keepdims=True)
    scale = 1 / np.sqrt((centred**2).mean(2, keepdims=True) + 1e-5)
    normal, wanted = centred * scale, (weight * gamma).reshape(4, 2, -1)
    off = wanted - wanted.mean(2, keepdims=True)
    gradient = scale * (off - normal * (wanted * normal).mean(2, keepdims=True))
    np.testing.assert_allclose(cell(Tensor(x)).asnumpy(), normal.reshape(x.shape) * gamma + beta, atol=4e-6)
    found = Gradient(cell)(Tensor(x), Tensor(weight)).asnumpy()
    np.testing.assert_allclose(found, gradient.reshape(x.shape), atol=4e-6)


def test_filter_response_norm_and_its_gradient_are_those_of_the_formula():
    rng = np.random.default_rng(2)
    x, weight = rng.normal(3, 2, (2, 4, 5, 6, 7)).astype(np.float32)
    cell = FilterResponseNorm(5)
    gamma, beta = with_values(cell, rng)
    scale = 1 / np.sqrt((x**2).mean((2, 3), keepdims=True) + 1e-6)
    gradient = gamma * (weight * scale - x * scale**3 * (weight * x).mean((2, 3), keepdims=True))
    np.testing.assert_allclose(cell(Tensor(x)).asnumpy(), gamma * x * scale + beta, atol=4e-6)
    np.testing.assert_allclose(Gradient(cell)(Tensor(x), Tensor(weight)).asnumpy(), gradient, atol=4e-6)


def test_a_thresholded_unit_is_a_relu_whose_corner_moves_by_channel():
    cell = ThresholdedUnit(2)
    x = np.array([[-2.0, 3.0], [0.5, -1.0]], np.float32).reshape(2, 2, 1, 1)
    np.testing.assert_array_equal(cell(Tensor(x)).asnumpy(), np.maximum(x, 0))
    cell.tau.set_data(Tensor(np.array([-1, 2], np.float32).reshape(1, 2, 1, 1)))
    assert cell(Tensor(x)).asnumpy().ravel().tolist() == [-1.0, 3.0, 0.5, 2.0]


@pytest.mark.parametrize("normalisation", ["group", "frn"])
def test_a_patch_that_is_normalised_by_itself_does_not_depend_on_its_batch_nor_on_the_mode(normalisation):
    recipe = Recipe(objective="contrastive", normalisation=normalisation, dropout=0.0)
    nets = [SDNet(recipe, training=training) for training in (True, False)]
    for net in nets:
        weights.load(net, weights.initial(net, 0))
    pairs = Tensor(np.random.default_rng(3).integers(0, 256, (4, 64, 128), np.uint8))
    together = [np.stack([side.asnumpy() for side in Embedder(net)(pairs)]) for net in nets]
    alone = np.stack([side.asnumpy() for side in Embedder(nets[1])(pairs[:1])])
    np.testing.assert_allclose(together[0], together[1], atol=1e-6)
    np.testing.assert_allclose(alone, together[1][:, :1], atol=1e-6)


def test_orientation_channels_respond_to_edges_of_their_orientation():
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
    """Shapes of a network's parameters, without the fixed factors of its batch norms."""
    shapes = weights.shapes(SDNet(Recipe(**fields), training=True))
    return {name: shape for name, shape in shapes.items() if not name.endswith(("gamma", "beta"))}


def test_only_the_published_objective_has_heads():
    missing = layers().keys() - layers(objective="contrastive").keys()
    assert {name.split(".")[0] for name in missing} == {"lower_opt", "lower_sar", "decoder"}


def test_samples_have_no_statistics_and_each_modality_may_have_its_own():
    for by_sample in ("instance", "group", "frn"):
        assert [name for name in layers(normalisation=by_sample) if "moving" in name] == []
    own = layers(normalisation="modality")
    assert own["embedding.15.opt.moving_mean"] == own["embedding.15.sar.moving_mean"] == (128,)
    assert "embedding.15.moving_mean" not in own


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("objective", "hardnet"),
        ("normalisation", "layer"),
        ("orientation_channels", -1),
        ("rotation_deg", 46.0),
        ("scale", float("nan")),
        ("jitter_px", -0.5),
        ("gamma", 3.0),
        ("contrastive_temperature", 0.0),
        ("hybrid", 2.0),  # belongs to the triplet loss
        ("second_order_weight", 1.0),
        ("scene_run", 0),
        ("average", 1.0),
        ("measured_statistics", True),  # of normalisation `batch`
    ],
)
def test_a_recipe_refuses_what_it_does_not_know(field, value):
    with pytest.raises(InputError, match=f"{field} is "):
        Recipe(**{field: value})
