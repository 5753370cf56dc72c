"""One order of ranks for Ray, MindSpore and HCCL.

Ray numbers workers in the order it happened to start them. HCCL wants ranks contiguous by
host, hosts in dictionary order of their server_id, devices ascending. So the workers are
renumbered before they learn their ranks, and every part of the program then means the same
by `rank`.
"""

from collections import Counter
from typing import Any

import ray
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.context import DistributedContext

from orchestrator.training.ascend_start import StatedHosts, server_id_of_host
from orchestrator.training.seats import npu_numbers

_ANSWER_WITHIN_S = 120.0


class RankOrder(WorkerGroupCallback):
    """Sorts a new group's workers, in place, before Ray Train hands out the ranks.

    super_pods_of: given where hosts may be in super pods (A3): the devices that the job states,
    by host. Each host is then asked for its server_id, which begins with its pod; everywhere
    else the server_id is the address.
    """

    def __init__(self, super_pods_of: StatedHosts | None = None):
        self._super_pods_of = super_pods_of

    def before_init_train_context(self, workers: list[Any]) -> dict[str, list[Any]]:
        server_ids = self._server_ids(workers)
        workers.sort(key=lambda worker: _seat(worker, server_ids))
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

    def _server_ids(self, workers: list[Any]) -> dict[str, str]:
        """The server_id of each host, by address."""
        worker_on = {worker.metadata.node_ip: worker for worker in workers}
        if self._super_pods_of is None:
            return {address: address for address in worker_on}
        asked = [
            worker.execute_async(server_id_of_host, address, self._super_pods_of)
            for address, worker in worker_on.items()
        ]
        return dict(zip(worker_on, ray.get(asked, timeout=_ANSWER_WITHIN_S), strict=True))


def _seat(worker: Any, server_ids: dict[str, str]) -> tuple[str, list[int], int]:
    """Host as text, then Ray's device ids; the process id decides between CPU workers."""
    place = worker.metadata
    npus = npu_numbers(place.accelerator_ids.get("NPU", []), place.node_ip)
    return server_ids[place.node_ip], sorted(npus), place.pid
