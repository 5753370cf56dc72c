"""An objective of the global batch is one loss over it, however the batch is spread."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mindspore import Tensor

from sdnet.config import Recipe
from sdnet.data.store import PatchFile
from sdnet.parameters import weights as of_network
from sdnet.training.losses import contrastive_loss, hybrid_scale, second_order_loss, triplet_loss
from sdnet.training.trainer import Snapshot, Trainer

pytestmark = pytest.mark.networks

GLOBAL_BATCH, STEPS = 8, 3


def recipe_of(slices: int, **fields: Any) -> Recipe:
    given: dict[str, Any] = {
        "objective": "contrastive",
        "normalisation": "instance",
        "second_order_weight": 0.5,
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
    trainer.total_steps = STEPS
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
def pairs() -> tuple[np.ndarray, np.ndarray]:
    """Descriptors of 12 places in both modalities, float32; those of a place are alike."""
    rng = np.random.default_rng(0)
    opt = rng.standard_normal((12, 128)) + 0.7 * rng.standard_normal(128)
    sar = opt + 0.8 * rng.standard_normal((12, 128))
    opt, sar = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (opt, sar))
    return opt.astype(np.float32), sar.astype(np.float32)


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.linalg.norm(first.astype(np.float64)[:, None] - second[None], axis=2)


def test_a_hybrid_measure_is_as_steep_as_a_distance():
    angles = np.linspace(0, np.pi, 100_001)
    for hybrid in (0.0, 0.5, 2.0, 100.0):
        slope = np.cos(angles / 2) + hybrid * np.sin(angles)
        assert hybrid_scale(hybrid) == pytest.approx(slope.max(), rel=1e-8)


@pytest.mark.parametrize(("margin", "hybrid"), [(1.0, 0.0), (1.2, 2.0)])
def test_the_triplet_loss_compares_each_pair_with_its_hardest_negative(pairs, margin, hybrid):
    opt, sar = pairs
    apart = distances(opt, sar)
    measure = (apart - hybrid * (1 - apart**2 / 2)) / hybrid_scale(hybrid)  # of unit vectors
    others = measure + 1e3 * np.eye(12)
    hardest = np.minimum(others.min(axis=0), others.min(axis=1))
    expected = np.maximum(0, margin + np.diag(measure) - hardest).mean()
    assert expected > 0
    found = float(triplet_loss(Tensor(opt), Tensor(sar), margin, hybrid).asnumpy())
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_second_order_loss_compares_the_distances_to_the_neighbours_in_either_modality(pairs):
    sides = [distances(side, side) for side in pairs]
    near = [side + 1e3 * np.eye(12) <= np.sort(side, axis=1)[:, 8:9] for side in sides]  # 0 is to itself
    assert [set(found.sum(axis=1)) for found in near] == [{8}, {8}]
    differences = np.where(near[0] | near[1], sides[0] - sides[1], 0)
    found = float(second_order_loss(*(Tensor(side) for side in pairs)).asnumpy())
    assert found == pytest.approx(np.linalg.norm(differences, axis=1).mean(), rel=1e-4)


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
MODALITY = {
    "normalisation": "modality",
    "orientation_channels": 2,
    "average": 0.15,
    "measured_statistics": True,
}


@pytest.fixture(scope="module")
def patches() -> PatchFile:
    """64 pairs of noise: the fewest whose statistics are measured."""
    images = np.random.default_rng(0).integers(0, 256, (64, 64, 128), np.uint8)
    return PatchFile(Path("train.npz"), images, np.ones(64, np.int32))


@dataclass(frozen=True)
class Whole:
    """An uninterrupted run of two slices: its losses, its end, and the checkpoint of its first step.

    trained: the network's own weights after each step.
    """

    losses: list[float]
    weights: np.ndarray
    end: Snapshot
    first_step: Path
    trained: list[of_network.State]


@pytest.fixture(scope="module")
def whole(patches: PatchFile, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    first_step = tmp_path_factory.mktemp("whole") / "step_1"
    trained: list[of_network.State] = []

    def save(trainer: Trainer) -> None:
        trained.append(of_network.copy(trainer._step.net))
        if trainer.progress.step == 1:
            trainer.snapshot().write(first_step)

    losses, weights, end = train_recipe(patches, recipe_of(2, **MODALITY), 2, after_step=save)
    return Whole(losses, weights, end, first_step, trained)


def test_a_checkpoint_holds_the_average_of_the_weights_over_the_steps(whole):
    averaged = whole.trained[0]
    measured = [name for name in averaged if "moving" in name]  # at the end, from the training patches
    assert all((whole.end.model[name] != whole.trained[2][name]).any() for name in measured)
    for name, value in averaged.items():
        for step, share in ((1, 1 / 10), (2, 0.15)):
            value = share * value + (1 - share) * whole.trained[step][name]
        if name not in measured:
            np.testing.assert_allclose(whole.end.model[name], value, rtol=1e-5, atol=1e-6)
    assert all((whole.end.optimizer[f"trained.{name}"] == whole.trained[2][name]).all() for name in averaged)


def test_one_rank_that_cuts_its_batch_trains_the_bytes_of_as_many_slices(whole, patches):
    recipe = replace(recipe_of(1, **MODALITY), slice_batch=GLOBAL_BATCH // 2)
    cut_losses, cut_weights, _ = train_recipe(patches, recipe, slices=1)
    assert cut_losses == whole.losses
    np.testing.assert_array_equal(cut_weights, whole.weights)


def test_a_run_of_several_slices_resumes_to_the_same_bytes(whole, patches):
    resumed = Trainer(recipe_of(2, **MODALITY), patches, slices=2)
    resumed.total_steps = STEPS
    resumed.restore(whole.first_step)
    assert resumed.progress.step == 1
    while resumed.progress.step < STEPS:
        resumed.step()
    found = resumed.snapshot()
    for kind in ("model", "optimizer"):
        pairs = getattr(whole.end, kind), getattr(found, kind)
        assert [name for name in pairs[0] if (pairs[0][name] != pairs[1][name]).any()] == []
    resumed.close()
