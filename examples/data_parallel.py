"""Train any MindSpore function data-parallel under Ray Train: python examples/data_parallel.py"""

import os

import numpy as np
import ray.train
from mindspore import Tensor, ops
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from orchestrator import MindSporeConfig


def train() -> None:
    """Fit y = 3x by gradient descent; each rank has its own samples, and all end with the same weight."""
    context, all_reduce = ray.train.get_context(), ops.AllReduce()
    x = np.random.default_rng(context.get_world_rank()).normal(size=64).astype(np.float32)
    weight = Tensor([0.0])
    for _ in range(20):
        gradient = Tensor([np.mean(2 * (weight.asnumpy() - 3) * x * x)])
        weight = weight - 0.2 * all_reduce(gradient) / context.get_world_size()
        ray.train.report({"weight": weight.asnumpy().item()})
    print("rank", context.get_world_rank(), "weight", weight.asnumpy().item().hex(), flush=True)


if __name__ == "__main__":
    os.umask(0o077)  # only this user may read the token that Ray writes to ~/.ray/auth_token
    DataParallelTrainer(
        train, backend_config=MindSporeConfig(), scaling_config=ray.train.ScalingConfig(num_workers=2)
    ).fit()
