"""BatchNorm statistics can come from the given images, without their labels."""

from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor

from orchestrator.job.stages.evaluate import Given, descriptors_of_worker
from orchestrator.storage.host_cache import HostCache
from sdnet.config import Recipe
from sdnet.data.store import PatchFile
from sdnet.errors import InputError
from sdnet.evaluation.evaluate import Evaluation, merge
from sdnet.evaluation.statistics import FEWEST, StatisticsOf, Weights, adapted
from sdnet.files import sha256_of
from sdnet.network.model import Embedder, SDNet, normalise, standardise
from sdnet.parameters import weights
from sdnet.parameters.published import write_published

pytestmark = pytest.mark.networks

MODERN = Recipe(objective="contrastive", normalisation="modality", dropout=0.0)


def start(recipe: Recipe) -> Weights:
    return Weights(recipe, weights.initial(SDNet(recipe, training=False), 0))


@pytest.fixture(scope="module")
def pairs() -> np.ndarray:
    """Optical patches of noise, and darker SAR patches that are smooth."""
    rng = np.random.default_rng(4)
    optical = rng.integers(0, 256, (FEWEST, 64, 64))
    sar = rng.integers(0, 90, (FEWEST, 16, 16)).repeat(4, axis=1).repeat(4, axis=2)
    return np.concatenate([optical, sar], axis=2).astype(np.uint8)


def embeddings(given: Weights, pairs: np.ndarray, training: bool) -> np.ndarray:
    net = SDNet(given.recipe, training=training)
    weights.load(net, given.state)
    return np.stack([side.asnumpy() for side in Embedder(net)(Tensor(pairs))])


def test_a_network_with_the_statistics_of_a_batch_describes_it_as_training_does(pairs):
    given = start(MODERN)
    found = adapted(given, StatisticsOf(given).measure(pairs[:, :, :64], pairs[:, :, 64:]))
    trained = embeddings(given, pairs, training=True)
    np.testing.assert_allclose(embeddings(found, pairs, training=False), trained, atol=0.01)
    assert np.abs(embeddings(given, pairs, training=False) - trained).max() > 0.05


def test_the_published_network_gets_statistics_for_each_sensor(pairs):
    given = start(Recipe())
    measured = StatisticsOf(given).measure(pairs[:, :, :64], pairs[:, :, 64:])
    optical, sar = (measured[f"embedding.2.{side}.moving_variance"] for side in ("opt", "sar"))
    assert not np.allclose(optical, sar, rtol=0.05)
    net = SDNet(Recipe(), training=False)
    weights.load(net, given.state)
    grey = Tensor(pairs[:, None, :, 64:].astype(np.float32))
    first = net.features_sar[0](standardise(normalise(grey))).asnumpy()
    mean, variance = first.mean((0, 2, 3)), first.var((0, 2, 3))
    np.testing.assert_allclose(measured["features_sar.1.moving_mean"], mean, atol=1e-5)
    np.testing.assert_allclose(measured["features_sar.1.moving_variance"], variance, rtol=1e-4)


def test_statistics_do_not_depend_on_what_was_measured_before_nor_on_labels(pairs):
    given = start(MODERN)
    measure = StatisticsOf(given)
    first = measure.measure(pairs[:, :, :64], pairs[:, :, 64:])
    measure.measure(pairs[::-1, :, 64:], pairs[::-1, :, :64])
    again = measure.measure(pairs[:, :, :64], pairs[:, :, 64:])
    assert {name: value.tobytes() for name, value in first.items()} == {
        name: value.tobytes() for name, value in again.items()
    }
    evaluation = Evaluation(MODERN)
    evaluation.load(given.state)
    for label in (0, 1):
        patches = PatchFile(Path("test.npz"), pairs, np.full(len(pairs), label, np.int32))
        found = evaluation.statistics_of(patches)
        assert all(np.array_equal(found[name], value) for name, value in first.items())
        moved = evaluation.with_statistics(found).embed(pairs)
        np.testing.assert_array_equal(np.stack(moved), embeddings(adapted(given, first), pairs, False))


def test_workers_that_are_given_statistics_describe_as_one_network_with_them(pairs, tmp_path):
    given = start(Recipe())
    sha256 = write_published(tmp_path / "net.ckpt", given.state)
    np.savez(tmp_path / "test.npz", pairs, np.arange(len(pairs)) % 2)
    found = StatisticsOf(given).measure(pairs[:, :, :64], pairs[:, :, 64:])
    evaluation, model = Evaluation.of_checkpoint(tmp_path / "net.ckpt")
    assert model.file_sha256 == sha256
    network = Given(tmp_path / "net.ckpt", model.weights_sha256, found)
    data = tmp_path / "test.npz"
    shares = [
        descriptors_of_worker(network, data, sha256_of(data), HostCache(base=tmp_path), 24, rank, 2, 1)
        for rank in range(2)
    ]
    merged = [merge(list(side), len(pairs), 24) for side in zip(*shares, strict=True)]
    patches = PatchFile(tmp_path / "test.npz", pairs, np.ones(len(pairs), np.int32))
    expected = evaluation.with_statistics(found).descriptors(patches, 24, range(3))
    np.testing.assert_array_equal(merged, expected)


def test_what_has_no_statistics_or_too_few_patches_is_refused(pairs):
    with pytest.raises(InputError, match="normalisation frn, so it has no statistics to replace"):
        StatisticsOf(start(Recipe(objective="contrastive", normalisation="frn")))
    with pytest.raises(InputError, match="there are 63 patches, too few"):
        StatisticsOf(start(MODERN)).measure(pairs[1:, :, :64], pairs[:, :, 64:])
