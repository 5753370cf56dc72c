"""Train next-token prediction with one attention layer, on one device: python examples/sequence.py"""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

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
    """One step of AdamW; returns the loss."""

    def __init__(self):
        super().__init__()
        self.objective = Objective()
        self.optimizer = nn.AdamWeightDecay(self.objective.trainable_params(), 0.01, weight_decay=0.01)
        self.gradient = ops.value_and_grad(self.objective, None, self.optimizer.parameters)

    def construct(self, sequences):
        loss, gradients = self.gradient(sequences)
        return ops.depend(loss, self.optimizer(gradients))


def batch(step):
    """Sequences that count upwards, each with a stride of its own: int32 [BATCH, LENGTH + 1]."""
    rng = np.random.default_rng(step)
    start, stride = rng.integers(0, TOKENS, (BATCH, 1)), rng.integers(1, 4, (BATCH, 1))
    return Tensor(((start + stride * np.arange(LENGTH + 1)) % TOKENS).astype(np.int32))


def train():
    """Train, and print the last loss."""
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_seed(1)
    train_step = TrainStep()
    for step in range(STEPS):
        loss = train_step(batch(step))
    print(f"loss {loss.asnumpy():.4f}")


if __name__ == "__main__":
    train()
