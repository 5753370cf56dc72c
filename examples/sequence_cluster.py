"""Train the model of sequence.py on a Ray cluster, through any failure: python examples/sequence_cluster.py"""

import os

import mindspore as ms
import numpy as np
import ray
from mindspore import Tensor, nn, ops
from ray.train import RunConfig, ScalingConfig

from orchestrator import MindSporeTrainer, get_session

BATCH, STEPS, LENGTH, TOKENS, WIDTH = 32, 120, 16, 12, 32


class Objective(nn.Cell):
    """Cross-entropy of the next token, for int32 sequences [B, LENGTH + 1]."""

    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(TOKENS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.query, self.key, self.value = (
            nn.Dense(WIDTH, WIDTH),
            nn.Dense(WIDTH, WIDTH),
            nn.Dense(WIDTH, WIDTH),
        )
        self.out = nn.Dense(WIDTH, TOKENS)
        self.order = Tensor(np.arange(LENGTH, dtype=np.int32))
        self.future = Tensor(np.triu(np.full((LENGTH, LENGTH), -1e9, np.float32), 1))

    def construct(self, sequences):
        x = self.tokens(sequences[:, :-1]) + self.places(self.order)
        scores = ops.matmul(self.query(x), self.key(x).swapaxes(1, 2)) / WIDTH**0.5 + self.future
        x = x + ops.matmul(ops.softmax(scores), self.value(x))
        return ops.cross_entropy(self.out(x).reshape(-1, TOKENS), sequences[:, 1:].reshape(-1))


class TrainStep(nn.Cell):
    """One step of AdamW on the mean gradient of all ranks; returns the mean loss."""

    def __init__(self, world_size):
        super().__init__()
        self.objective = Objective()
        self.optimizer = nn.AdamWeightDecay(self.objective.trainable_params(), 0.01, weight_decay=0.01)
        self.gradient = ops.value_and_grad(self.objective, None, self.optimizer.parameters)
        self.world_size = world_size
        self.all_reduce = ops.AllReduce() if world_size > 1 else nn.Identity()

    def construct(self, sequences):
        loss, gradients = self.gradient(sequences)
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
    """This rank's sequences of one step. Each sequence counts upwards with a stride of its own."""
    rng = np.random.default_rng(step)
    start, stride = rng.integers(0, TOKENS, (BATCH, 1)), rng.integers(1, 4, (BATCH, 1))
    sequences = (start + stride * np.arange(LENGTH + 1)) % TOKENS
    return Tensor(sequences[rank::world_size].astype(np.int32))


def train(config):
    """Train; the loss of the last step is the run's metric."""
    session = get_session()
    ms.set_seed(1)
    train_step = TrainStep(session.world_size)
    first = session.restore(train_step.load)
    for step in range(first, config["steps"]):
        loss = train_step(batch(step, session.rank, session.world_size))
        session.step(step + 1, state=train_step.state, metrics={"loss": float(loss.asnumpy())})


if __name__ == "__main__":
    os.umask(0o077)  # only this user may read the token that Ray writes to ~/.ray/auth_token
    ray.init()
    trainer = MindSporeTrainer(
        train,
        train_loop_config={"steps": STEPS},
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(name="sequence", storage_path="runs"),
    )
    print(trainer.fit())
