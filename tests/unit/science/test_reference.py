"""Our SDNet against numbers from the published one, to the tolerances of its README."""

from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor, nn

from sdnet.config import Recipe
from sdnet.evaluation.metrics import accuracy, fpr95
from sdnet.network.model import SDNet, normalise, split_pair
from sdnet.parameters import checkpoint, weights
from sdnet.training.losses import DISTILLED
from sdnet.training.train_step import LOSSES, TrainStep

pytestmark = [pytest.mark.shared, pytest.mark.networks]

REFERENCE_NAMES = {
    "opt": "opt_embedding", "sar": "sar_embedding", "low_opt": "low_opt", "low_sar": "low_sar",
    "recon_opt": "recon_opt", "recon_sar": "recon_sar",
}  # fmt: skip


class AllOutputs(nn.Cell):
    def __init__(self, net: SDNet):
        super().__init__(auto_prefix=False)
        self.net = net

    def construct(self, pairs):
        opt, sar = split_pair(pairs)
        return self.net(normalise(opt), normalise(sar))


@pytest.fixture(scope="module")
def reference(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "reference/outputs.npz", allow_pickle=False) as file:
        return dict(file)


def published_net(shared: Path) -> SDNet:
    net = SDNet(Recipe(), training=False)
    path = shared / "reference/checkpoint_SDNet_5.ckpt"
    weights.load(net, checkpoint.read_model(path, weights.shapes(net)))
    return net


@pytest.fixture(scope="module")
def outputs(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "reference/patches.npz", allow_pickle=False) as file:
        tensors = AllOutputs(published_net(shared))(Tensor(file["arr_0"]))
    return dict(zip(REFERENCE_NAMES, (tensor.asnumpy() for tensor in tensors), strict=True))


@pytest.fixture(scope="module")
def one_step(shared: Path) -> dict[str, dict[str, float]]:
    """Losses, norms of gradients and norms of changes, of one Adam step in evaluation mode."""
    net = published_net(shared)
    step = TrainStep(net, Recipe(batch=32), slice_size=32, slices=1, world_size=1)
    before = weights.copy(net)
    with np.load(shared / "reference/loss_batch.npz", allow_pickle=False) as file:
        pairs = file["arr_0"]
    zero = Tensor(np.int32(0))
    flat = step.gradients(Tensor(pairs), zero, zero)[0].asnumpy()
    gradients, at = {}, 0
    for parameter in net.trainable_params():
        gradients[parameter.name] = float(np.linalg.norm(flat[at : at + parameter.size]))
        at += parameter.size
    step.add_slice(pairs, step=0, slice_=0)
    step.apply(step=0, learning_rate=0.004)
    after = weights.copy(net)
    changes = {name: float(np.linalg.norm((after[name] - before[name]).ravel())) for name in gradients}
    losses = dict(zip(LOSSES, step.losses().tolist(), strict=True))
    return {"losses": losses, "gradients": gradients, "changes": changes}


@pytest.mark.parametrize("ours", REFERENCE_NAMES)
def test_every_output_agrees_with_the_published_network(outputs, reference, ours):
    np.testing.assert_allclose(outputs[ours], reference[REFERENCE_NAMES[ours]], rtol=0, atol=1e-4)


def test_distances_and_rates_agree_with_the_published_network(outputs, reference):
    distances = np.linalg.norm(outputs["opt"].astype(np.float64) - outputs["sar"], axis=1)
    np.testing.assert_allclose(distances, reference["distances"], rtol=0, atol=1e-4)
    assert fpr95(distances, reference["labels"]) == reference["fpr95"]
    assert accuracy(distances, reference["labels"]) == reference["accuracy"]


@pytest.mark.parametrize(
    "term",
    ["total", "match", "recon_opt", "recon_sar", *(f"distill_{f}__{e}" for f, e in DISTILLED)],
)
def test_every_loss_agrees_with_the_published_one(one_step, reference, term):
    np.testing.assert_allclose(one_step["losses"][term], reference[f"loss_{term}"], rtol=1e-4)


@pytest.mark.parametrize(("ours", "theirs"), [("gradients", "grad_norms"), ("changes", "step_norms")])
def test_gradients_and_the_adam_step_have_the_published_norms(one_step, reference, ours, theirs):
    names = [name.split(".", 1)[1] for name in reference["param_names"].tolist()]
    assert set(names) == set(one_step[ours])
    found = [one_step[ours][name] for name in names]
    np.testing.assert_allclose(found, reference[theirs], rtol=1e-3)


@pytest.mark.parametrize("case", range(5))
def test_metrics_equal_the_published_ones_exactly(reference, case):
    distances, labels = reference[f"metric{case}_distances"], reference[f"metric{case}_labels"]
    assert fpr95(distances, labels) == reference[f"metric{case}_fpr95"]
    assert accuracy(distances, labels) == reference[f"metric{case}_accuracy"]
