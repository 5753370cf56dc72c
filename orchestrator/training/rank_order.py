"""One order of ranks for Ray, MindSpore and HCCL.

Ray numbers workers in the order it happened to start them. HCCL wants ranks contiguous by
host, hosts in dictionary order, devices ascending. So the workers are renumbered before they
learn their ranks, and every part of the program then means the same by `rank`.
"""

from collections import Counter
from typing import Any

from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.context import DistributedContext


class RankOrder(WorkerGroupCallback):
    """Sorts a new group's workers, in place, before Ray Train hands out the ranks."""

    def before_init_train_context(self, workers: list[Any]) -> dict[str, list[Any]]:
        workers.sort(key=_seat)
        addresses = [worker.metadata.node_ip for worker in workers]
        hosts = list(dict.fromkeys(addresses))
        ranks_on = Counter(addresses)
        for rank, (worker, address) in enumerate(zip(workers, addresses, strict=True)):
            worker.distributed_context = DistributedContext(
                world_rank=rank,
                world_size=len(workers),
                local_rank=addresses[:rank].count(address),
                local_world_size=ranks_on[address],
                node_rank=hosts.index(address),
            )
        return {}


def _seat(worker: Any) -> tuple[str, list[int], int]:
    """Host address as text, then physical device ids; the process id decides between CPU workers."""
    place = worker.metadata
    return place.node_ip, sorted(int(npu) for npu in place.accelerator_ids.get("NPU", [])), place.pid
