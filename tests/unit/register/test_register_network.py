"""SDNet in registration: the same descriptors as in evaluation, and dense ones that agree with them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import sdnet
from sdnet.config import Recipe
from sdnet.data.store import PatchFile
from sdnet.errors import InputError
from sdnet.evaluation.evaluate import Evaluation
from sdnet.network.model import SDNet
from sdnet.parameters import weights
from sdnet.parameters.published import write_published
from sdnet.registration.images import image_from_array
from sdnet.registration.matching.network import Network, describe_points
from sdnet.training.trainer import Trainer
from tests.made_pairs import pair

pytestmark = pytest.mark.networks


@pytest.fixture(scope="module", params=["published", "modern"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network, as a published checkpoint or as a directory of another recipe."""
    folder = tmp_path_factory.mktemp("network")
    if request.param == "published":
        write_published(folder / "1.ckpt", weights.initial(SDNet(Recipe(), training=False), seed=0))
        return folder / "1.ckpt"
    recipe = Recipe(batch=8, objective="contrastive", normalisation="modality", orientation_channels=4)
    patches = PatchFile(folder / "train.npz", np.zeros((8, 64, 128), np.uint8), np.ones(8, np.int32))
    Trainer(recipe, patches).snapshot().write(folder / "step_0")
    return folder / "step_0"


@pytest.fixture(scope="module")
def net(file: Path) -> Network:
    return sdnet.load(file)


def test_descriptors_are_those_of_evaluation(net: Network, file: Path) -> None:
    optical, sar = pair(200, np.eye(3))
    points = np.array([[32, 32], [100.4, 90.6], [168, 168]])
    found = [sdnet.describe(net, optical, points, "optical"), sdnet.describe(net, sar, points, "sar")]
    corners = [(0, 0), (68, 59), (136, 136)]
    patches = [np.hstack([i[r : r + 64, c : c + 64] for i in (optical, sar)]) for r, c in corners]
    evaluation, loaded = Evaluation.of_checkpoint(file)
    assert net.origin == loaded.origin
    expected = evaluation.embed(np.stack(patches))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == (3, 128) and ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_point_near_the_rim_is_refused(net: Network) -> None:
    optical, _ = pair(200, np.eye(3))
    with pytest.raises(InputError, match=r"point \(100, 169\) is nearer than 32 px to the rim"):
        sdnet.describe(net, optical, np.array([[100, 100], [100, 169]]))


def test_no_points_give_no_descriptors(net: Network) -> None:
    assert sdnet.describe(net, pair(200, np.eye(3))[0], np.empty((0, 2))).shape == (0, 128)


def test_dense_descriptors_look_like_those_of_the_patches(net: Network) -> None:
    optical, _ = pair(256, np.eye(3))
    dense = net.dense(optical, "optical")
    assert dense.shape == (128, 25, 25)
    cells = np.array([(4, 5), (12, 12), (20, 18)])
    alone = sdnet.describe(net, optical, 8 * cells + 32)
    assert (dense[:, cells[:, 0], cells[:, 1]].T * alone).sum(axis=1).min() > 0.7


def test_a_network_and_templates_together_register_a_pair(net: Network) -> None:
    truth = np.array([[1, 0, 12.5], [0, 1, -4.0], [0, 0, 1]])
    found = sdnet.register(*pair(320, truth), net=net, measure="cfog")
    assert found.verdict.trusted and found.transform is not None
    assert np.abs((found.transform.matrix - truth)[:2, 2]).max() < 0.7


def test_an_adapted_network_describes_its_images_with_their_own_statistics(net: Network) -> None:
    images = tuple(image_from_array(grey) for grey in pair(200, np.eye(3)))
    adapted = net.adapted(*images)
    points = np.array([[60, 60], [100, 90], [140, 140]])
    before = describe_points(adapted, images[0], points, "optical")
    assert np.abs(before - describe_points(net, images[0], points, "optical")).max() > 0.01
    assert adapted.origin == net.origin
    net.adapted(images[1], images[0])  # the same twin, with other statistics
    np.testing.assert_array_equal(describe_points(net.adapted(*images), images[0], points, "optical"), before)


def test_a_pair_is_registered_with_the_statistics_of_its_images(net: Network) -> None:
    truth = np.array([[1, 0, 12.5], [0, 1, -4.0], [0, 0, 1]])
    found = sdnet.register(*pair(320, truth), net=net, measure="cfog", adapt=True)
    assert found.verdict.trusted and found.transform is not None
    assert np.abs((found.transform.matrix - truth)[:2, 2]).max() < 0.7


def test_threads_share_a_network_and_its_adapted_ones(net: Network) -> None:
    first, second = pair(200, np.eye(3))
    points = [[100, 100]]
    made = [net.adapted(*map(image_from_array, images)) for images in ((first, second), (second, first))]
    networks = [net, *made] * 2
    expected = [sdnet.describe(one, first, points) for one in networks]
    with ThreadPoolExecutor(len(networks)) as threads:
        found = list(threads.map(lambda one: sdnet.describe(one, first, points), networks))
    assert all((ours == theirs).all() for ours, theirs in zip(found, expected, strict=True))
    assert not any((expected[0] == other).all() for other in expected[1:3])


def test_statistics_without_a_network_are_refused() -> None:
    with pytest.raises(InputError, match="adapt changes the statistics of a network, and there is none"):
        sdnet.register(*pair(200, np.eye(3)), adapt=True)
