"""One update of the weights, whichever rank computes its slices."""

import numpy as np
import pytest
from mindspore import Tensor

from sdnet.config import Recipe
from sdnet.data.store import PatchFile
from sdnet.parameters import weights
from sdnet.training.train_step import LOSSES, TrainStep

pytestmark = pytest.mark.networks

LR = 0.004


class Fresh:
    """The shared step, and the two slices of one global batch."""

    def __init__(self, step: TrainStep, recipe: Recipe, patches: PatchFile):
        self.step, self.recipe = step, recipe
        self.slices = [patches.images[: recipe.batch], patches.images[recipe.batch : 2 * recipe.batch]]
        self.reset()

    def reset(self) -> None:
        """Restore the untrained state."""
        step = self.step
        weights.load(step.net, weights.initial(step.net, self.recipe.seed))
        zeros = {name: np.zeros_like(value) for name, value in step.optimizer_state().items()}
        step.set_optimizer_state(
            zeros | dict.fromkeys(("beta1_power", "beta2_power"), np.array(1, np.float32))
        )
        step.reset_statistics()
        step.forget_bad_step()
        step.set_losses(np.zeros(len(LOSSES), np.float32))

    def slice_alone(self, slice_: int) -> tuple[np.ndarray, np.ndarray, weights.State]:
        """Gradients, losses and changed state of one slice from the current weights, which are restored."""
        before = weights.copy(self.step.net)
        first = Tensor(np.int32(slice_ * self.recipe.batch))
        flat, losses = self.step.gradients(Tensor(self.slices[slice_]), Tensor(np.int32(0)), first)
        result = flat.asnumpy().copy(), losses.asnumpy().copy(), weights.copy(self.step.net)
        weights.load(self.step.net, before)
        return result

    def update(self, order: tuple[int, int] = (0, 1), number: int = 0) -> weights.State:
        """One step of both slices; the weights after it."""
        for slice_ in order:
            self.step.add_slice(self.slices[slice_], number, slice_)
        self.step.apply(number, LR)
        return weights.copy(self.step.net)


@pytest.fixture
def fresh(train_step: TrainStep, recipe: Recipe, patches: PatchFile) -> Fresh:
    return Fresh(train_step, recipe, patches)


def test_two_slices_on_one_rank_step_adam_by_the_mean_of_their_gradients(fresh, recipe):
    net = fresh.step.net
    before = weights.copy(net)
    first, first_losses, first_moved = fresh.slice_alone(0)
    second, second_losses, second_moved = fresh.slice_alone(1)
    after = fresh.update()
    at = 0
    for parameter in net.trainable_params():
        weight = before[parameter.name].ravel()
        gradient = (first + second)[at : at + weight.size] / 2 + recipe.weight_decay * weight
        at += weight.size
        # The first step of Adam: both moments hold one gradient, so the bias corrections cancel.
        change = LR * gradient / (np.abs(gradient) + 1e-8 / np.sqrt(1 - recipe.beta2))
        np.testing.assert_allclose(after[parameter.name].ravel(), weight - change, rtol=0, atol=2e-6)
    for name in (name for name in before if "moving" in name):
        mean = (first_moved[name] + second_moved[name]) / 2
        np.testing.assert_allclose(after[name], mean, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(fresh.step.losses(), (first_losses + second_losses) / 2, rtol=1e-6)


def test_the_same_step_gives_the_same_bytes_in_whichever_order_slices_come(fresh):
    first = fresh.update()
    for order in ((0, 1), (1, 0)):
        fresh.reset()
        again = fresh.update(order)
        assert [name for name in first if (first[name] != again[name]).any()] == []


def test_the_total_is_the_weighted_sum_of_the_named_terms(fresh):
    fresh.update()
    found = dict(zip(LOSSES, fresh.step.losses().tolist(), strict=True))
    distilled = sum(value for name, value in found.items() if name.startswith("distill"))
    reconstructed = found["recon_opt"] + found["recon_sar"]
    assert found["total"] == pytest.approx(found["match"] + 10 * distilled + 0.001 * reconstructed, rel=1e-5)


def test_the_first_step_with_a_loss_that_is_not_finite_is_named(fresh):
    fresh.update(number=6)
    assert fresh.step.first_bad_step() is None
    poisoned = weights.copy(fresh.step.net)
    poisoned["embedding.14.weight"][0, 0, 0, 0] = np.nan
    weights.load(fresh.step.net, poisoned)
    fresh.update(number=7)
    fresh.update(number=8)
    assert fresh.step.first_bad_step() == 7
