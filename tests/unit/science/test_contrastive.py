"""The contrastive objective is one loss over the global batch, however the batch is spread."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from mindspore import Tensor

from sdnet.config import Recipe
from sdnet.data.store import PatchFile
from sdnet.losses import contrastive_loss
from sdnet.trainer import Trainer

pytestmark = pytest.mark.networks

GLOBAL_BATCH, STEPS = 8, 3


def recipe_of(slices: int, **fields: Any) -> Recipe:
    given: dict[str, Any] = {
        "objective": "contrastive",
        "normalisation": "instance",
        "flips": True,
        "epochs": 2,
        "lr": 0.001,
    }
    return Recipe(batch=GLOBAL_BATCH // slices, **{**given, **fields})


def train(patches: PatchFile, slices: int, **fields: object) -> tuple[list[float], np.ndarray]:
    return train_recipe(patches, recipe_of(slices, **fields), slices)


def train_recipe(patches: PatchFile, recipe: Recipe, slices: int) -> tuple[list[float], np.ndarray]:
    """Losses of the first steps, and the weights after them, flat."""
    trainer = Trainer(recipe, patches, slices=slices)
    losses, before = [], 0.0
    for _ in range(STEPS):
        trainer.step()
        done = trainer.progress.step
        losses.append(trainer.finish_epoch()["total"] * done - before)
        before += losses[-1]
    trainer.close()
    model = trainer.snapshot().model
    return losses, np.concatenate([value.ravel() for value in model.values()])


def test_the_loss_is_the_mean_cross_entropy_of_choosing_the_partner_both_ways():
    rng = np.random.default_rng(0)
    opt, sar = (rng.standard_normal((5, 128)).astype(np.float32) for _ in range(2))
    opt, sar = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (opt, sar))
    cosines = opt.astype(np.float64) @ sar.T / 0.07
    rows = np.log(np.exp(cosines).sum(axis=1)) - np.diag(cosines)
    columns = np.log(np.exp(cosines).sum(axis=0)) - np.diag(cosines)
    found = float(contrastive_loss(Tensor(opt), Tensor(sar), 0.07).asnumpy())
    assert found == pytest.approx((rows.mean() + columns.mean()) / 2, rel=1e-5)


@pytest.fixture(scope="module")
def alone(patches: PatchFile) -> tuple[list[float], np.ndarray]:
    return train(patches, slices=1)


@pytest.mark.parametrize("slices", [2, 4])
def test_slices_of_a_global_batch_give_the_losses_and_weights_of_one_large_batch(alone, patches, slices):
    losses, weights = train(patches, slices)
    np.testing.assert_allclose(losses, alone[0], rtol=2e-5)
    # By length: where a gradient is nearly 0, Adam turns its rounding into a step of either sign.
    assert np.linalg.norm(weights - alone[1]) < 1e-4 * np.linalg.norm(alone[1])


def test_one_rank_that_cuts_its_batch_trains_the_bytes_of_as_many_slices(patches):
    given = {"normalisation": "modality", "orientation_channels": 2}
    losses, weights = train(patches, slices=2, **given)
    recipe = replace(recipe_of(1, **given), slice_batch=GLOBAL_BATCH // 2)
    cut_losses, cut_weights = train_recipe(patches, recipe, slices=1)
    assert cut_losses == losses
    np.testing.assert_array_equal(cut_weights, weights)


def test_a_run_of_several_slices_resumes_to_the_same_bytes(patches, tmp_path):
    recipe = recipe_of(2, normalisation="modality")
    whole, resumed = (Trainer(recipe, patches, slices=2) for _ in range(2))
    for _ in range(STEPS):
        if whole.progress.step == 1:
            whole.snapshot().write(tmp_path / "step_1")
        whole.step()
    resumed.restore(tmp_path / "step_1")
    while resumed.progress.step < STEPS:
        resumed.step()
    expected, found = whole.snapshot(), resumed.snapshot()
    for kind in ("model", "optimizer"):
        pairs = getattr(expected, kind), getattr(found, kind)
        assert [name for name in pairs[0] if (pairs[0][name] != pairs[1][name]).any()] == []
    whole.close()
    resumed.close()
