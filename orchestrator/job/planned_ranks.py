"""The ranks of a job before it runs: where each will be, and its environment as the engine makes it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.ascend.environment import rendezvous_of
from orchestrator.ascend.placement import AscendHost, Place, place
from orchestrator.engine.control.generation import Member
from orchestrator.engine.control.hang import longest_wait_s
from orchestrator.engine.environment import environment_of, process_environment
from orchestrator.engine.options import StartOptions
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import ClusterSpec, JobSpec

# The value of a variable that only the running cluster knows.
KNOWN_AT_START = "<known at start>"


@dataclass(frozen=True, slots=True)
class PlannedRank:
    """Where a rank runs and every variable that is set for it; `KNOWN_AT_START` if only the start decides it."""

    rank: int
    host: str
    local_rank: int
    device: str
    environment: dict[str, str]


def planned_ranks(
    spec: JobSpec, run: RunDirectory, places: Sequence[Place] | None
) -> tuple[PlannedRank, ...]:
    """Every rank of the full group. places: of an Ascend job that names its hosts."""
    cluster = spec.cluster
    members = _members(cluster) if places is None else _members_of(places)
    unknown = _unknown(cluster, places)
    options = start_options(spec)
    own = process_environment(cluster.threads, str(run.root))
    if not options.on_device:
        own |= {"MS_COMPILER_CACHE_ENABLE": "1", "MS_COMPILER_CACHE_PATH": KNOWN_AT_START}
    table = str(run.plan / "rank_table.json") if cluster.device == "ascend" else None
    seen: dict[str, int] = {}
    ranks = []
    for member in members:
        local_rank = seen.setdefault(member.host, 0)
        seen[member.host] += 1
        environment = {**own, **environment_of(member.rank, members, options, (members[0].host, 1), table)}
        marked = {name: KNOWN_AT_START if name in unknown else value for name, value in environment.items()}
        device = _device_of(cluster, places, member.rank)
        ranks.append(PlannedRank(member.rank, member.host, local_rank, device, dict(sorted(marked.items()))))
    return tuple(ranks)


def ascend_places(cluster: ClusterSpec) -> tuple[Place, ...]:
    """Place the job's ranks on the Ascend hosts that it names. Raises InputError."""
    hosts = tuple(AscendHost.stated(host.address, host.devices) for host in cluster.hosts)
    return place(hosts, cluster.max_workers, cluster.soc, cluster.workers_per_host)


def start_options(spec: JobSpec) -> StartOptions:
    """What a worker of this job starts with."""
    cluster, step_timeout = spec.cluster, spec.recovery.step_timeout_s
    return StartOptions(
        device=cluster.device,
        threads=cluster.threads,
        collective=cluster.collective,
        rendezvous=rendezvous_of(cluster.rendezvous, cluster.device),
        soc=cluster.soc,
        failure_budget_s=longest_wait_s(None if step_timeout == "auto" else step_timeout),
    )


def _device_of(cluster: ClusterSpec, places: Sequence[Place] | None, rank: int) -> str:
    if cluster.device == "cpu":
        return "cpu"
    return f"npu {places[rank].npu.device_id}" if places else "npu"


def _members_of(places: Sequence[Place]) -> tuple[Member, ...]:
    return tuple(
        Member(rank=place.rank, host=place.host.address, node="", pid=0, npus=(place.npu.number_in_cann,))
        for place in places
    )


def _members(cluster: ClusterSpec) -> tuple[Member, ...]:
    """Ranks on hosts that are still unknown; the hosts are numbered."""
    per_host = cluster.workers_per_host or cluster.max_workers
    if cluster.address != "local" and cluster.workers_per_host is None:
        per_host = max(1, (os.cpu_count() or 1) // cluster.threads)
    members = []
    for rank in range(cluster.max_workers):
        host, local_rank = divmod(rank, per_host)
        name = "this host" if cluster.address == "local" else f"host {host}"
        members.append(Member(rank=rank, host=name, node="", pid=0, npus=(local_rank,)))
    if cluster.device == "cpu":
        return tuple(replace(member, npus=()) for member in members)
    return tuple(members)


def _unknown(cluster: ClusterSpec, places: Sequence[Place] | None) -> frozenset[str]:
    """Names of the variables whose values depend on more than the job."""
    unknown = {"MS_SCHED_PORT", "RANK_TABLE_FILE"}  # a free port; the number of the generation
    if places is None:
        unknown |= {"MS_SCHED_HOST", "ASCEND_RT_VISIBLE_DEVICES"}
        if cluster.address != "local" or cluster.device == "ascend":
            unknown.add("DEVICE_ID")  # it counts the ranks of a host, or names the device that Ray gives
    return frozenset(unknown)
