"""The exact environment of each rank, and the CPUs it runs on. Pure: reads and sets nothing.

Sources: MindSpore 2.10's dynamic cluster (the `MS_*` names it reads) and its header `collective_ops_impl.h`
(MS_CPU_COMM_OP_TIMEOUT, which is MS_NODE_TIMEOUT or else 30 s if it is not set), HCCL's public documents
(time-outs and their ranges), CANN's ASCEND_RT_VISIBLE_DEVICES. Names that 2.10 no longer
reads (MS_CLUSTER_TIMEOUT, MS_HCCL_CM_INIT, MS_RECOVERY_PATH) are not set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.ascend.device_groups import Soc
from orchestrator.ascend.rank_table.text import why_hccl_skips_path
from orchestrator.errors import InputError

Device = Literal["cpu", "ascend"]
# store: a key-value store in rank 0's process. MindSpore 2.10 supports it, but not with HCCL.
Rendezvous = Literal["store", "dynamic_cluster", "rank_table"]
StatedRendezvous = Literal["auto", "store", "dynamic_cluster", "rank_table"]
# Addresses of devices, by host address and physical device id.
StatedHosts = Mapping[str, Mapping[int, str]]
# auto: HCCL between NPUs, mccl between CPUs. mccl with device ascend is a rehearsal without NPUs.
Collective = Literal["auto", "mccl"]

# For ranks without our watchdog. With it, the time-outs of MindSpore and HCCL are only the fallback if it fails.
FAILURE_BUDGET_S = 120.0

# HCCL refuses a connect time-out outside this range; 120 s is also its default.
_HCCL_CONNECT_S = (120, 7200)
# 910A counts execution time in units of 68 s and rounds down; the most is 17340 s.
_HCCL_EXEC_UNIT_910A_S, _MOST_HCCL_EXEC_UNITS_910A = 68, 255
# No rank compiles before the rendezvous, but a slow host may need long to import MindSpore.
_MIN_TOPOLOGY_S = 120
_MIN_HEARTBEAT_S = 5


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time-outs of MindSpore and HCCL in whole seconds, all derived from one failure budget.

    topology: for all ranks to join the scheduler. heartbeat: until a silent rank counts as dead.
    hccl_connect: for two devices to connect. hccl_exec: for a collective that a peer never joins.
    """

    topology: int
    heartbeat: int
    hccl_connect: int
    hccl_exec: int


def timeouts(failure_budget_s: float, soc: Soc) -> Timeouts:
    """Derive every time-out from the seconds that a failure may stay undetected, within HCCL's ranges.

    HCCL and MindSpore are the fallback of our own watchdog, so no time-out may fire before the budget has passed.
    There are two exceptions: hccl_exec on 910A, which HCCL rounds down (to at least 68 s) and limits to 17340 s,
    and hccl_connect, which HCCL limits to 7200 s.
    """
    if not 0 < failure_budget_s < 2**31:
        raise InputError(
            f"failure budget is {failure_budget_s} s; it must be above 0 and below 2**31 seconds"
        )
    budget = -int(-failure_budget_s // 1)
    lowest, highest = _HCCL_CONNECT_S
    unit = _HCCL_EXEC_UNIT_910A_S
    units = min(max(budget // unit, 1), _MOST_HCCL_EXEC_UNITS_910A)
    return Timeouts(
        topology=max(budget, _MIN_TOPOLOGY_S),
        heartbeat=max(budget, _MIN_HEARTBEAT_S),
        hccl_connect=min(max(budget, lowest), highest),
        hccl_exec=units * unit if soc == "910a" else budget,
    )


def rendezvous_of(stated: StatedRendezvous, device: Device) -> Rendezvous:
    """The rendezvous; `auto` is a store on CPU, which saves seconds, and a dynamic cluster on Ascend."""
    if stated != "auto":
        return stated
    return "store" if device == "cpu" else "dynamic_cluster"


def rank_environment(
    *,
    rank: int,
    local_rank: int,
    world_size: int,
    scheduler_host: str,
    scheduler_port: int,
    device: Device,
    rendezvous: Rendezvous = "dynamic_cluster",
    threads: int,
    failure_budget_s: float,
    soc: Soc = "910b",
    device_id: int | None = None,
    visible_devices: Sequence[int] = (),
    rank_table_path: str | None = None,
) -> dict[str, str]:
    """Every variable that a rank needs before MindSpore touches a device, and no other.

    device_id: CANN's number of the rank's NPU, which is also Ray's; ascend only. In a container that sees
        only some devices of its host, CANN numbers those from 0, whatever their physical ids are.
    visible_devices: numbers of the devices that the process may see, in the order that CANN uses.
        If given (Ray isolates its workers), ASCEND_RT_VISIBLE_DEVICES is set, and DEVICE_ID is the
        position of `device_id` in it. If empty (NOSET), all are visible and DEVICE_ID is `device_id`.
    rank_table_path: the table from which HCCL builds the group. dynamic_cluster does not need it (HCCL
        finds its peers through the scheduler); rank_table does.
    With one rank, and with a store as rendezvous, the scheduler is ignored and its MS_* variables are not set.
    On cpu the same MS_* variables start `mccl`; DEVICE_ID is the local rank, and no HCCL variable is set.
    MS_CPU_COMM_OP_TIMEOUT is how long `mccl` waits for a late rank.
    Raises InputError when the values contradict each other.
    """
    if not 0 <= local_rank <= rank < world_size:
        raise InputError(
            f"rank {rank} (local rank {local_rank}) of {world_size}; ranks go from 0 to world_size - 1"
        )
    limits = timeouts(failure_budget_s, soc)
    place = local_rank if device == "cpu" else _place_among_visible(rank, device_id, visible_devices)
    environment = {
        "DEVICE_ID": str(place),
        "RANK_ID": str(rank),
        "RANK_SIZE": str(world_size),
        **thread_variables(threads),
    }
    if rendezvous == "store" and device == "ascend":
        raise InputError("rendezvous is store; it needs device cpu")
    if rendezvous == "rank_table" and (device == "cpu" or rank_table_path is None):
        raise InputError("rendezvous is rank_table; it needs device ascend and the path of a rank table")
    if rendezvous == "dynamic_cluster" and world_size > 1:
        environment |= {
            "MS_NODE_ID": str(rank),
            "MS_ROLE": "MS_WORKER",
            **cluster_variables(world_size, scheduler_host, scheduler_port, limits),
        }
    if device == "cpu" and world_size > 1:
        environment["MS_CPU_COMM_OP_TIMEOUT"] = str(limits.heartbeat)
    if device == "ascend":
        environment |= _ascend_variables(visible_devices, rank_table_path, limits)
    return dict(sorted(environment.items()))


def scheduler_environment(
    *, world_size: int, scheduler_host: str, scheduler_port: int, failure_budget_s: float, soc: Soc = "910b"
) -> dict[str, str]:
    """Every variable of the one scheduler process of a dynamic cluster, the same on cpu and ascend."""
    limits = timeouts(failure_budget_s, soc)
    variables = cluster_variables(world_size, scheduler_host, scheduler_port, limits)
    return dict(sorted({"MS_ROLE": "MS_SCHED", **variables}.items()))


def cluster_variables(world_size: int, host: str, port: int, limits: Timeouts) -> dict[str, str]:
    """What the scheduler and its ranks must agree on."""
    if not 1 <= port <= 65535:
        raise InputError(f"scheduler port is {port}; it must be from 1 to 65535")
    return {
        "MS_NODE_TIMEOUT": str(limits.heartbeat),
        "MS_SCHED_HOST": host,
        "MS_SCHED_PORT": str(port),
        "MS_TOPO_TIMEOUT": str(limits.topology),
        "MS_WORKER_NUM": str(world_size),
    }


def cpus_of_ranks(
    *, numa_cpus: Mapping[int, Sequence[int]], rank_nodes: Sequence[int | None]
) -> list[tuple[int, ...]]:
    """Which CPUs each rank of one host runs on, near its device; in the order of the local ranks.

    numa_cpus: CPUs of each NUMA node that the process may use. rank_nodes: NUMA node of each rank's
    device, None when it is not known or there is no device. Ranks without a node share all CPUs.
    The CPUs of a node are divided among its ranks into contiguous, disjoint runs, whose sizes differ by
    at most one. If a node has more ranks than CPUs, all of its ranks share the whole node, because a rank
    without a CPU cannot run. A node without a CPU counts as unknown.
    """
    every_cpu = sorted(cpu for cpus in numa_cpus.values() for cpu in cpus)
    if not every_cpu:
        raise InputError("the host shows no CPU to run on; give its container a CPU set")
    known = {node: sorted(cpus) for node, cpus in numa_cpus.items() if cpus}
    nodes = [node if node in known else None for node in rank_nodes]
    result: list[tuple[int, ...]] = []
    for local_rank, node in enumerate(nodes):
        pool = every_cpu if node is None else known[node]
        sharers, place = nodes.count(node), nodes[:local_rank].count(node)
        share = pool[place * len(pool) // sharers : (place + 1) * len(pool) // sharers]
        result.append(tuple(share if len(pool) >= sharers else pool))
    return result


def _place_among_visible(rank: int, device_id: int | None, visible: Sequence[int]) -> int:
    if device_id is None:
        raise InputError(f"rank {rank} has no device; give the number of its NPU")
    if not visible:
        return device_id
    if device_id not in visible:
        raise InputError(
            f"rank {rank} must use NPU {device_id}, but sees only {list(visible)}; "
            "start Ray so that its workers see the placed devices"
        )
    return list(visible).index(device_id)


def thread_variables(threads: int) -> dict[str, str]:
    """One thread count for all libraries: the bytes of the weights depend on it."""
    if threads < 1:
        raise InputError(f"threads is {threads}; it must be at least 1")
    return {name: str(threads) for name in ("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def _ascend_variables(
    visible: Sequence[int], rank_table_path: str | None, limits: Timeouts
) -> dict[str, str]:
    variables = {
        "HCCL_CONNECT_TIMEOUT": str(limits.hccl_connect),
        "HCCL_EXEC_TIMEOUT": str(limits.hccl_exec),
    }
    if visible:
        variables["ASCEND_RT_VISIBLE_DEVICES"] = ",".join(map(str, visible))
    if rank_table_path is not None:
        if why := why_hccl_skips_path(rank_table_path):
            raise InputError(f"rank table {rank_table_path!r} {why}")
        variables["RANK_TABLE_FILE"] = rank_table_path
    return variables
