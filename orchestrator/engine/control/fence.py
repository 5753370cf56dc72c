"""The fence between two generations: the next starts only when the ranks of the last are gone.

A rank that still runs would write checkpoints, hold devices and ports, and answer for its successor.
"""

from collections.abc import Sequence

from orchestrator.engine.control.failures import RanksStillRun
from orchestrator.engine.control.generation import Member
from orchestrator.engine.control.ports import Cluster
from orchestrator.telemetry.events import Fenced


def fence(cluster: Cluster, members: Sequence[Member]) -> Fenced:
    """Kill these ranks on every host that can be reached, and wait until they are gone.

    A host that Ray has given up cannot be asked. Its ranks are cut off with it, and the port and the scheduler of
    their group are never used again. Raises RanksStillRun.
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
