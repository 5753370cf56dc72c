"""Hosts that are drained with notice: by `ray drain-node`, or by an autoscaler before it preempts them.

All ranks save and exit after the same step, before the deadline, and the group restarts on other hosts. The ranks
agree on the step among themselves (`engine/rank/leave.py`); the controller only delivers the notice.
"""

from orchestrator.engine.control.generation import Generation
from orchestrator.engine.control.ports import Clock, Cluster, Ranks
from orchestrator.engine.messages import Notice, NoticeKind
from orchestrator.telemetry.events import DrainNoticed

_LOOK_EVERY_S = 1.0


class Drain:
    """Notices drained hosts of one generation."""

    def __init__(self, clock: Clock, cluster: Cluster, generation: Generation, ranks: Ranks):
        self._clock, self._cluster = clock, cluster
        self._generation, self._ranks = generation, ranks
        self._notified: frozenset[str] = frozenset()
        self._next_look = 0.0

    def look(self) -> DrainNoticed | None:
        """Ask Ray once a second; when another host of the group is drained, notify all ranks and return the event."""
        now = self._clock.now()
        if now < self._next_look:
            return None
        self._next_look = now + _LOOK_EVERY_S
        deadlines = self._cluster.draining()
        members = [member for member in self._generation.members if member.node in deadlines]
        nodes = frozenset(member.node for member in members)
        if not nodes or nodes == self._notified:
            return None
        self._notified = nodes
        ranks = tuple(sorted(member.rank for member in members))
        self._ranks.notify(Notice(NoticeKind.DRAIN, ranks))
        known = [deadline for node in nodes if (deadline := deadlines[node]) is not None]
        return DrainNoticed(
            hosts=tuple(sorted({member.host for member in members})),
            ranks=ranks,
            left_s=round(min(known) - self._clock.time(), 1) if known else None,
        )
