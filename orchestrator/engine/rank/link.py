"""A rank's end of its connection to the controller.

The training thread writes the heartbeat, and the actor's main thread answers the controller. So a rank that hangs in a
collective still reports its phase and step. One process may serve several groups, so links are found by the name of
the group.
"""

import threading
import time
from dataclasses import dataclass, field, replace
from typing import Protocol

from orchestrator.engine.messages import GroupInfo, Heartbeat, Notice, Phase


class LivingProcess(Protocol):
    """A process that may die."""

    @property
    def alive(self) -> bool:
        """Whether it still runs."""


@dataclass(slots=True)
class RankLink:
    """One rank's end. store, scheduler: kept here, if the rank has them, so that they live as long as the group."""

    info: GroupInfo
    rank: int
    store: object = None
    scheduler: LivingProcess | None = None
    _beat: Heartbeat = Heartbeat()
    _changed: float = field(default_factory=time.monotonic)
    _notice: Notice | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def beat(self, phase: Phase, step: int, work_s: float | None = None) -> None:
        """Report that this rank is in `phase` after `step` global steps. work_s: None keeps the last value."""
        with self._lock:
            work_s = self._beat.work_s if work_s is None else work_s
            reported = self._beat.steps_reported or phase == "stepping"
            self._beat = replace(self._beat, phase=phase, step=step, work_s=work_s, steps_reported=reported)
            self._changed = time.monotonic()

    def saved(self, name: str) -> None:
        """Report the newest valid checkpoint."""
        with self._lock:
            self._beat = replace(self._beat, saved=name)

    def heartbeat(self) -> Heartbeat:
        """The current heartbeat. Its age comes from this host's monotonic clock."""
        alive = self.scheduler is None or self.scheduler.alive
        with self._lock:
            since_s = time.monotonic() - self._changed
            return replace(self._beat, since_s=since_s, scheduler_alive=alive)

    def deliver(self, notice: Notice) -> None:
        """Store a notice of the controller; a later one replaces it."""
        with self._lock:
            self._notice = notice

    @property
    def notice(self) -> Notice | None:
        """The newest notice."""
        with self._lock:
            return self._notice


_links: dict[str, RankLink] = {}


def open_link(info: GroupInfo, rank: int) -> RankLink:
    """Make this process a rank of the group; a second call for the same group returns the same link."""
    return _links.setdefault(info.group, RankLink(info, rank))


def link_of(group: str) -> RankLink:
    """This process's link of the group. Raises KeyError if it has none."""
    return _links[group]


def current_link() -> RankLink:
    """The link of the group that this process entered last; its training thread belongs to that group."""
    return next(reversed(_links.values()))


def read_heartbeat(group: str) -> Heartbeat:
    """Called by the controller on a worker: the rank's heartbeat."""
    return link_of(group).heartbeat()


def deliver_notice(group: str, notice: Notice) -> None:
    """Called by the controller on a worker: store a notice for the training thread."""
    link_of(group).deliver(notice)
