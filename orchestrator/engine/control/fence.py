"""The fence between two generations: the next one starts only when no reachable host has a rank of the last one.

A rank that still ran would write checkpoints, keep devices and ports, and answer requests meant for its successor.
"""

from collections.abc import Sequence

from orchestrator.engine.control.failures import RanksStillRun
from orchestrator.engine.control.generation import Member
from orchestrator.engine.control.ports import Cluster
from orchestrator.telemetry.events import Fenced


def fence(cluster: Cluster, members: Sequence[Member]) -> Fenced:
    """Kill these ranks on every reachable host, and wait until they are gone. Raises RanksStillRun.

    A host that is dead or does not answer in time is unreachable. Ranks that may still run there cannot disturb the
    next generation: it has its own port and its own scheduler.
    """
    remaining = cluster.end_ranks(members)
    stuck = tuple(sorted(rank for ranks in remaining.values() for rank in ranks))
    if stuck:
        raise RanksStillRun(stuck, tuple(sorted({m.host for m in members if m.rank in stuck})))
    hosts = {member.host for member in members}
    return Fenced(
        ranks=tuple(sorted(member.rank for member in members)),
        unreachable=tuple(sorted(hosts - set(remaining))),
    )
