"""Networks that several tests share: compiling one takes seconds."""

from collections.abc import Iterator
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from sdnet.config import Recipe
from sdnet.data.store import PatchFile
from sdnet.evaluation.evaluate import Evaluation
from sdnet.network.model import SDNet
from sdnet.parameters import weights
from sdnet.training.train_step import TrainStep
from sdnet.training.trainer import Trainer

BATCH, SLICES = 8, 2


@pytest.fixture(scope="session", autouse=True)
def graph_mode() -> None:
    ms.set_context(mode=ms.GRAPH_MODE)


@pytest.fixture(scope="session")
def patches() -> PatchFile:
    """40 pairs of noise, matches: with 2 slices of 8, an epoch is 3 steps and the last one wraps."""
    images = np.random.default_rng(0).integers(0, 256, (40, 64, 128), np.uint8)
    return PatchFile(Path("train.npz"), images, np.ones(40, np.int32))


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return Recipe(epochs=2, batch=BATCH)


@pytest.fixture(scope="session")
def train_step(recipe: Recipe) -> TrainStep:
    return TrainStep(SDNet(recipe, training=True), recipe, recipe.batch, SLICES, world_size=1)


@pytest.fixture(scope="session")
def trainer(recipe: Recipe, patches: PatchFile) -> Iterator[Trainer]:
    """One rank that does the work of two."""
    made = Trainer(recipe, patches, slices=SLICES)
    yield made
    made.close()


@pytest.fixture(scope="session")
def evaluation() -> Evaluation:
    made = Evaluation()
    net = SDNet(Recipe(), training=False)
    made.load(weights.initial(net, seed=0))
    return made


@pytest.fixture(scope="session")
def model() -> weights.State:
    """The weights that training starts with."""
    return weights.initial(SDNet(Recipe(), training=True), seed=3)


@pytest.fixture(scope="session")
def shapes(model: weights.State) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in model.items()}
