"""Train a small CNN that reads handwritten digits, on one device: python examples/digits.py"""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from sklearn.datasets import load_digits

BATCH, STEPS = 64, 120


class Objective(nn.Cell):
    """Cross-entropy of two convolutions and a classifier, for float32 images [B, 1, 8, 8]."""

    def __init__(self):
        super().__init__()
        self.net = nn.SequentialCell(
            nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(),
            nn.Flatten(), nn.Dense(32 * 16, 10),
        )  # fmt: skip

    def construct(self, images, labels):
        return ops.cross_entropy(self.net(images), labels)


class TrainStep(nn.Cell):
    """One step of gradient descent with momentum; returns the loss."""

    def __init__(self):
        super().__init__()
        self.objective = Objective()
        self.optimizer = nn.Momentum(self.objective.trainable_params(), 0.05, 0.9)
        self.gradient = ops.value_and_grad(self.objective, None, self.optimizer.parameters)

    def construct(self, images, labels):
        loss, gradients = self.gradient(images, labels)
        return ops.depend(loss, self.optimizer(gradients))


def batch(step):
    """The samples of one step, float32 [BATCH, 1, 8, 8] and int32 [BATCH]: a function of the step alone."""
    digits = load_digits()
    chosen = np.random.default_rng(step).integers(0, len(digits.images), BATCH)
    images = (digits.images[chosen, None] / 16).astype(np.float32)
    return Tensor(images), Tensor(digits.target[chosen].astype(np.int32))


def train():
    """Train, and print the last loss."""
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_seed(1)
    train_step = TrainStep()
    for step in range(STEPS):
        loss = train_step(*batch(step))
    print(f"loss {loss.asnumpy():.4f}")


if __name__ == "__main__":
    train()
