"""A run that was stopped anywhere resumes to the same bytes."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sdnet.config import Recipe
from sdnet.data.store import PatchFile, open_patches
from sdnet.errors import InputError, NonFiniteLoss, NonFiniteWeights
from sdnet.files import sha256_of
from sdnet.parameters import weights
from sdnet.parameters.checkpoint import CorruptCheckpoint, read_state
from sdnet.training.train_step import LOSSES
from sdnet.training.trainer import Trainer

pytestmark = pytest.mark.networks


def digest(trainer: Trainer) -> str:
    """Checksum of every byte of weights and optimizer."""
    snapshot = trainer.snapshot()
    arrays = [*snapshot.model.values(), *snapshot.optimizer.values()]
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


@pytest.fixture(scope="module")
def start(trainer: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the untrained network."""
    path = tmp_path_factory.mktemp("start") / "step_0"
    trainer.snapshot().write(path)
    return path


def test_a_run_resumed_in_the_middle_of_an_epoch_ends_with_the_same_bytes(trainer, start, tmp_path):
    trainer.restore(start)
    for _ in range(2):
        trainer.step()
    trainer.snapshot({"fpr95": 0.25}).write(tmp_path / "step_2")
    for _ in range(2):
        trainer.step()
    uninterrupted, losses = digest(trainer), trainer.finish_epoch()
    assert trainer.progress.epoch == 1

    trainer.restore(start)
    state = trainer.restore(tmp_path / "step_2")
    assert (state.epoch, state.step, state.samples, state.fpr95) == (0, 2, 32, 0.25)
    for _ in range(2):
        trainer.step()
    assert digest(trainer) == uninterrupted
    assert trainer.finish_epoch() == losses


def test_measuring_how_long_a_slice_takes_changes_no_byte(trainer, start, monkeypatch):
    trainer.restore(start)
    for _ in range(3):
        trainer.step()
    unmeasured = digest(trainer)
    monkeypatch.setattr("sdnet.training.trainer._MEASURE_EVERY", 1)
    trainer.restore(start)
    for _ in range(3):
        trainer.step()
    assert trainer.work_s > 0
    assert digest(trainer) == unmeasured


def test_the_losses_of_an_epoch_are_means_and_survive_a_resume(trainer, start, tmp_path):
    trainer.restore(start)
    trainer.step()
    first = trainer.finish_epoch()
    trainer.snapshot().write(tmp_path / "step_1")
    trainer.step()
    both = trainer.finish_epoch()
    trainer.restore(tmp_path / "step_1")
    assert trainer.finish_epoch() == first
    assert tuple(first) == LOSSES
    trainer.step()
    assert trainer.finish_epoch() == both


def test_an_epoch_wraps_its_last_batch_and_the_rate_falls_to_zero(trainer, start):
    trainer.restore(start)
    assert (trainer.steps_per_epoch, trainer.total_steps) == (3, 6)
    assert trainer.learning_rate == 0.004
    for _ in range(3):
        trainer.step()
    assert (trainer.progress.epoch, trainer.progress.samples) == (1, 48)
    assert trainer.learning_rate == pytest.approx(0.004 * (1 - 2 / 6))


def test_a_snapshot_does_not_change_while_training_continues(trainer, start):
    trainer.restore(start)
    snapshot = trainer.snapshot()
    before = {name: value.copy() for name, value in snapshot.model.items()}
    trainer.step()
    assert all((snapshot.model[name] == before[name]).all() for name in before)


def test_weights_that_diverged_are_never_saved(trainer, start, tmp_path):
    trainer.restore(start)
    snapshot = trainer.snapshot()
    snapshot.model["embedding.14.weight"][0] = np.nan
    with pytest.raises(NonFiniteWeights, match="the weights are not finite after step 0"):
        snapshot.write(tmp_path / "poisoned")
    weights.load(trainer._step.net, snapshot.model)
    trainer.step()
    with pytest.raises(NonFiniteLoss, match="not finite at step 0"):
        trainer.snapshot()
    with pytest.raises(NonFiniteLoss, match="not finite at step 0"):
        trainer.finish_epoch()
    trainer.restore(start)
    assert np.isfinite(trainer.snapshot().model["embedding.14.weight"]).all()


def test_distances_do_not_disturb_training(trainer, start, patches):
    trainer.restore(start)
    before = digest(trainer)
    distances = trainer.distances(patches, batch=8)
    assert distances.shape == (40,)
    assert digest(trainer) == before


def test_a_checkpoint_of_another_recipe_or_data_is_refused_by_name(trainer, start, recipe, patches):
    other = Trainer(replace(recipe, lr=0.01), patches, slices=2)
    with pytest.raises(InputError, match=r"was trained with lr 0\.004, not 0\.01"):
        other.restore(start)
    fewer = PatchFile(patches.path, patches.images[:32], patches.labels[:32])
    with pytest.raises(InputError, match="was trained with num_samples 40, not 32"):
        Trainer(recipe, fewer, slices=2).restore(start)


def test_a_checkpoint_belongs_to_the_files_it_was_trained_with(recipe, patches, start, tmp_path):
    sums = {"train.npz": "a" * 64, "test.npz": "b" * 64}
    trained = Trainer(recipe, patches, slices=2, data=sums)
    trained.restore(start)  # of an older version: it does not say
    trained.snapshot().write(tmp_path / "kept")
    assert read_state(tmp_path / "kept").data == sums and read_state(start).data == {}
    trained.restore(tmp_path / "kept")
    Trainer(recipe, patches, slices=2).restore(tmp_path / "kept")
    for name in sums:
        other = Trainer(recipe, patches, slices=2, data={**sums, name: "c" * 64})
        with pytest.raises(
            InputError, match=rf"was trained with another {name} \(checksum (a|b){{12}}, now c"
        ):
            other.restore(tmp_path / "kept")


def test_a_corrupt_checkpoint_is_refused_before_anything_changes(trainer, start, tmp_path):
    trainer.restore(start)
    trainer.step()
    trainer.snapshot().write(tmp_path / "bad")
    before = digest(trainer)
    (tmp_path / "bad/optimizer.ckpt").write_bytes(b"")
    with pytest.raises(CorruptCheckpoint):
        trainer.restore(tmp_path / "bad")
    assert digest(trainer) == before


def test_the_state_names_the_run(trainer, start, recipe):
    state = read_state(start)
    assert (state.seed, state.slices, state.world_size, state.num_samples) == (0, 2, 1, 40)
    assert state.recipe["batch"] == recipe.batch
    files = json.loads((start / "state.json").read_text())["files"]
    assert {name: found["size"] for name, found in files.items()} == {
        name: (start / name).stat().st_size for name in ("model.ckpt", "optimizer.ckpt")
    }


@pytest.mark.parametrize(
    ("batch", "ranks", "message"),
    [
        (64, {}, "a step takes 64 samples and the data holds 40"),
        (8, {"rank": 2, "world_size": 2}, "rank 2 of 2"),
    ],
)
def test_what_cannot_be_trained_is_refused(patches, batch, ranks, message):
    with pytest.raises(InputError, match=message):
        Trainer(Recipe(batch=batch), patches, **ranks)


def test_training_stops_at_the_first_step_after_its_file_was_changed_in_place(recipe, tmp_path):
    path = tmp_path / "train.npz"
    images = np.random.default_rng(0).integers(0, 256, (40, 64, 128), np.uint8)
    np.savez(path, images, np.ones(40, int))
    whole = path.read_bytes()
    trainer = Trainer(recipe, open_patches(path), slices=2, data={"train.npz": sha256_of(path)})
    trainer.step()
    path.write_bytes(whole)  # the same bytes again
    trainer.step()
    path.write_bytes(whole[:-5000] + bytes(1000) + whole[-4000:])
    with pytest.raises(
        InputError, match=rf"{path} was changed while this run used it; put the same file back"
    ):
        trainer.step()
    assert trainer.progress.step == 2
    trainer.close()


def test_an_evaluation_of_a_file_that_is_changed_meanwhile_is_no_result(trainer, start, tmp_path):
    trainer.restore(start)
    path = tmp_path / "test.npz"
    np.savez(path, np.zeros((8, 64, 128), np.uint8), np.ones(8, int))
    patches = open_patches(path)
    np.savez(path, np.ones((8, 64, 128), np.uint8), np.ones(8, int))
    with pytest.raises(InputError, match=f"{path} was changed while this run used it"):
        trainer.distances(patches, batch=8)
