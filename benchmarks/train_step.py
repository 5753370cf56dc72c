"""Speed-up of one gradient over three: our training step against the published one.

Both sides train the same network on the same batches, with dropout. Our side is the product's step:
one forward, one backward. The published code runs the network four times forward (once for
the losses that it prints, once inside each of three gradients) and three times backward: for
match and distillation by the embedding network's weights, for the low-level descriptors', and for the
decoder's. Both then update in the same way, and must have the same weights after the first
step. The sides alternate.

usage: python benchmarks/train_step.py [--batch 100] [--rounds 5] [--json]
"""

import json
import statistics
import time

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from step_options import read_options  # type: ignore[import-not-found]

from sdnet.config import Recipe
from sdnet.network.model import SDNet
from sdnet.parameters import weights
from sdnet.training.train_step import Objective, TrainStep

TARGET = 2.0
GROUPS = (("features_opt", "features_sar", "embedding"), ("lower_opt", "lower_sar"), ("decoder",))


class GroupGradient(nn.Cell):
    """The gradient of the whole loss by one group of weights, as one vector."""

    def __init__(self, objective: Objective, group: tuple[str, ...]):
        super().__init__(auto_prefix=False)
        trained = [p for p in objective.net.trainable_params() if p.name.split(".")[0] in group]
        self.gradient = ops.value_and_grad(objective, None, ms.ParameterTuple(trained), has_aux=True)

    def construct(self, pairs: Tensor, step: Tensor, first: Tensor) -> Tensor:
        _, gradients = self.gradient(pairs, step, first)
        return ops.concat([gradient.reshape(-1) for gradient in gradients])


class ThreeGradients(TrainStep):
    """Our step, but with the losses and the gradient of each group of weights computed separately.

    Four graphs, because GRAPH_MODE may merge the forwards of one graph into one.
    """

    def __init__(self, net: SDNet, recipe: Recipe):
        super().__init__(net, recipe, recipe.batch, slices=1, world_size=1)
        self.objective = Objective(net, recipe)
        self.groups = [GroupGradient(self.objective, group) for group in GROUPS]

    def add_slice(self, pairs: np.ndarray, step: int, slice_: int) -> None:
        """Like TrainStep's. The groups are in the order of the weights, so their gradients are concatenated."""
        where = Tensor(np.int32(step)), Tensor(np.int32(slice_ * self.batch))
        losses = self.objective(Tensor(pairs), *where)[1]
        gradients = [group(Tensor(pairs), *where) for group in self.groups]
        self.accumulate(ops.concat(gradients), losses)


def check_same_update(nets: list[SDNet]) -> None:
    """After one step both sides have the same weights, up to the order of float32 sums."""
    for one, other in zip(*(net.trainable_params() for net in nets), strict=True):
        np.testing.assert_allclose(one.asnumpy(), other.asnumpy(), rtol=0, atol=1e-5, err_msg=one.name)


def measure(batch: int, rounds: int) -> dict[str, object]:
    """Milliseconds per step of both sides, alternating; the first step of each compiles and is not counted."""
    recipe = Recipe(batch=batch)
    nets = [SDNet(recipe, training=True) for _ in range(2)]
    for net in nets:
        weights.load(net, weights.initial(net, seed=0))
    sides = {
        "one_gradient_ms": TrainStep(nets[0], recipe, recipe.batch, slices=1, world_size=1),
        "three_gradients_ms": ThreeGradients(nets[1], recipe),
    }
    pairs = np.random.default_rng(0).integers(0, 256, (batch, 64, 128), np.uint8)
    times: dict[str, list[float]] = {side: [] for side in sides}
    for step in range(rounds + 1):
        for side, train_step in sides.items():
            began = time.perf_counter()
            train_step.add_slice(pairs, step, 0)
            train_step.apply(step, recipe.lr)
            train_step.losses()  # waits for the device
            if step > 0:
                times[side].append(round(1000 * (time.perf_counter() - began), 1))
        if step == 0:
            check_same_update(nets)
    one, three = (statistics.median(values) for values in times.values())
    ratio = three / one
    return {
        "name": "train_step",
        "ratio": round(ratio, 3),
        "target": TARGET,
        "met": ratio >= TARGET,
        "batch": batch,
        **times,
        "one_gradient_median_ms": one,
        "three_gradients_median_ms": three,
    }


def main() -> None:
    """Measure and print."""
    arguments = read_options(__doc__, "measured steps of each side")
    ms.set_context(mode=ms.GRAPH_MODE)
    found = measure(arguments.batch, arguments.rounds)
    if arguments.json:
        print(json.dumps(found))
    else:
        print(f"one gradient    {found['one_gradient_median_ms']:8.1f} ms per step at batch {found['batch']}")
        print(f"three gradients {found['three_gradients_median_ms']:8.1f} ms")
        print(
            f"ratio           {found['ratio']:8.2f}    target {TARGET}: {'met' if found['met'] else 'MISSED'}"
        )


if __name__ == "__main__":
    main()
