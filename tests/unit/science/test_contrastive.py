"""The contrastive objective is one loss over the global batch, however the batch is spread."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mindspore import Tensor

from sdnet.config import Recipe
from sdnet.data.store import PatchFile
from sdnet.losses import contrastive_loss
from sdnet.trainer import Snapshot, Trainer

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


def train(patches: PatchFile, slices: int) -> tuple[list[float], np.ndarray]:
    losses, weights, _ = train_recipe(patches, recipe_of(slices), slices)
    return losses, weights


def train_recipe(
    patches: PatchFile,
    recipe: Recipe,
    slices: int,
    after_step: Callable[[Trainer], None] = lambda trainer: None,
) -> tuple[list[float], np.ndarray, Snapshot]:
    """Losses of the first steps, the flat weights after them, and the whole state to save."""
    trainer = Trainer(recipe, patches, slices=slices)
    losses, before = [], 0.0
    for _ in range(STEPS):
        trainer.step()
        done = trainer.progress.step
        losses.append(trainer.finish_epoch()["total"] * done - before)
        before += losses[-1]
        after_step(trainer)
    trainer.close()
    end = trainer.snapshot()
    return losses, np.concatenate([value.ravel() for value in end.model.values()]), end


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


# Its statistics are part of a checkpoint, and every option changes the graph that slices share.
MODALITY = {"normalisation": "modality", "orientation_channels": 2}


@dataclass(frozen=True)
class Whole:
    """An uninterrupted run of two slices: its losses, its end, and the checkpoint of its first step."""

    losses: list[float]
    weights: np.ndarray
    end: Snapshot
    first_step: Path


@pytest.fixture(scope="module")
def whole(patches: PatchFile, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    first_step = tmp_path_factory.mktemp("whole") / "step_1"

    def save(trainer: Trainer) -> None:
        if trainer.progress.step == 1:
            trainer.snapshot().write(first_step)

    losses, weights, end = train_recipe(patches, recipe_of(2, **MODALITY), 2, after_step=save)
    return Whole(losses, weights, end, first_step)


def test_one_rank_that_cuts_its_batch_trains_the_bytes_of_as_many_slices(whole, patches):
    recipe = replace(recipe_of(1, **MODALITY), slice_batch=GLOBAL_BATCH // 2)
    cut_losses, cut_weights, _ = train_recipe(patches, recipe, slices=1)
    assert cut_losses == whole.losses
    np.testing.assert_array_equal(cut_weights, whole.weights)


def test_a_run_of_several_slices_resumes_to_the_same_bytes(whole, patches):
    resumed = Trainer(recipe_of(2, **MODALITY), patches, slices=2)
    resumed.restore(whole.first_step)
    assert resumed.progress.step == 1
    while resumed.progress.step < STEPS:
        resumed.step()
    found = resumed.snapshot()
    for kind in ("model", "optimizer"):
        pairs = getattr(whole.end, kind), getattr(found, kind)
        assert [name for name in pairs[0] if (pairs[0][name] != pairs[1][name]).any()] == []
    resumed.close()
