"""Any MindSpore training function, data-parallel under Ray Train: python examples/data_parallel.py"""

import mindspore
import numpy as np
import ray.train
from mindspore import Tensor, nn, ops


class Average(nn.Cell):
    """Mean over all ranks of a float32 tensor."""

    def __init__(self, world_size: int):
        super().__init__()
        self.all_reduce, self.world_size = ops.AllReduce(), world_size

    def construct(self, x: Tensor) -> Tensor:
        return self.all_reduce(x) / self.world_size


def train() -> None:
    """Fit y = 3x by gradient descent; each rank sees other samples, all end with the same weight."""
    context = ray.train.get_context()
    average = Average(context.get_world_size())
    x = np.random.default_rng(context.get_world_rank()).normal(size=64).astype(np.float32)
    weight = np.float32(0)
    for _ in range(20):
        gradient = average(Tensor([np.mean(2 * (weight * x - 3 * x) * x)], mindspore.float32))
        weight -= np.float32(0.2) * gradient.asnumpy()[0]
        ray.train.report({"weight": float(weight)})


if __name__ == "__main__":
    from data_parallel import train as importable_train  # MindSpore compiles from a module's source
    from ray.train import RunConfig, ScalingConfig, UserCallback
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from orchestrator.training.backend import MindSporeConfig

    class Show(UserCallback):
        def after_report(self, run_context, metrics, checkpoint):
            print("weights by rank:", [m["weight"] for m in metrics], flush=True)

    DataParallelTrainer(
        importable_train,
        backend_config=MindSporeConfig(),
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(callbacks=[Show()]),
    ).fit()
