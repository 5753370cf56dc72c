"""The environment variables of a rank. `plan` and a real start use the same two functions.

`process_environment` is set before the process starts, `environment_of` before the process uses a device.
"""

from collections.abc import Sequence

from orchestrator.ascend.environment import rank_environment, thread_variables
from orchestrator.engine.control.generation import Member
from orchestrator.engine.host.left_over import RUN_VARIABLE
from orchestrator.engine.options import StartOptions

# NumPy's linear algebra may compute initial weights. By default OpenBLAS selects the newest kernels of each host's
# CPU, and AVX2 and AVX-512 kernels differ in the last bit. Other architectures ignore the variable.
_SAME_KERNELS = {"OPENBLAS_CORETYPE": "Haswell"}


def process_environment(threads: int, run: str) -> dict[str, str]:
    """Variables that must be set before a rank's process starts. run: mark of the run's processes.

    OpenMP and BLAS read them when they are loaded. The mark must be in the initial environment, the only one that
    other processes can read: a later generation uses it to find processes that earlier ones left.
    """
    return {**thread_variables(threads), **_SAME_KERNELS, "GLOG_v": "3", RUN_VARIABLE: run}


def environment_of(
    rank: int,
    members: Sequence[Member],
    options: StartOptions,
    address: tuple[str, int] | None,
    rank_table_path: str | None,
) -> dict[str, str]:
    """Variables that MindSpore reads in the process of this rank. address: of the rendezvous, if there is one."""
    hosts = [member.host for member in members]
    npus = members[rank].npus
    scheduler_host, scheduler_port = address or (hosts[rank], 1)
    return rank_environment(
        rank=rank,
        local_rank=hosts[:rank].count(hosts[rank]),
        world_size=len(members),
        scheduler_host=scheduler_host,
        scheduler_port=scheduler_port,
        device=options.device,
        rendezvous=options.rendezvous,
        threads=options.threads,
        failure_budget_s=options.failure_budget_s,
        soc=options.soc,
        device_id=npus[0] if npus else None,
        visible_devices=npus,
        rank_table_path=rank_table_path,
    )
