"""Train the CNN of digits.py on a Ray cluster, through any failure: python examples/digits_cluster.py"""

import os

import mindspore as ms
import numpy as np
import ray
from mindspore import Tensor, nn, ops
from ray.train import RunConfig, ScalingConfig
from sklearn.datasets import load_digits

from orchestrator import MindSporeTrainer, get_session

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
    """One step of gradient descent with momentum on the mean gradient of all ranks; returns the mean loss."""

    def __init__(self, world_size):
        super().__init__()
        self.objective = Objective()
        self.optimizer = nn.Momentum(self.objective.trainable_params(), 0.05, 0.9)
        self.gradient = ops.value_and_grad(self.objective, None, self.optimizer.parameters)
        self.world_size = world_size
        self.all_reduce = ops.AllReduce() if world_size > 1 else nn.Identity()

    def construct(self, images, labels):
        loss, gradients = self.gradient(images, labels)
        means = []
        for gradient in gradients:
            means.append(self.all_reduce(gradient) / self.world_size)
        loss = self.all_reduce(loss) / self.world_size
        return ops.depend(loss, self.optimizer(tuple(means)))

    def state(self):
        return {parameter.name: parameter.asnumpy().copy() for parameter in self.get_parameters()}

    def load(self, state):
        for parameter in self.get_parameters():
            parameter.set_data(Tensor(state[parameter.name]))


def batch(step, rank, world_size):
    """This rank's samples of one step: a slice of a batch that depends on the step alone."""
    digits = load_digits()
    chosen = np.random.default_rng(step).integers(0, len(digits.images), BATCH)[rank::world_size]
    images = (digits.images[chosen, None] / 16).astype(np.float32)
    return Tensor(images), Tensor(digits.target[chosen].astype(np.int32))


def train(config):
    """Train; the loss of the last step is the run's metric."""
    session = get_session()
    ms.set_seed(1)
    train_step = TrainStep(session.world_size)
    first = session.restore(train_step.load)
    for step in range(first, config["steps"]):
        loss = train_step(*batch(step, session.rank, session.world_size))
        session.step(step + 1, state=train_step.state, metrics={"loss": float(loss.asnumpy())})


if __name__ == "__main__":
    os.umask(0o077)  # only this user may read the token that Ray writes to ~/.ray/auth_token
    ray.init()
    trainer = MindSporeTrainer(
        train,
        train_loop_config={"steps": STEPS},
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(name="digits", storage_path="runs"),
    )
    print(trainer.fit())
