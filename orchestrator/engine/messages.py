"""Messages between the controller and its ranks: ranks answer with heartbeats, the controller sends notices."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Phase = Literal["starting", "compiling", "stepping", "evaluating", "saving", "finished"]


class NoticeKind(StrEnum):
    """drain: some hosts go away; all ranks save and exit, and the group restarts. stop: the launch ends."""

    DRAIN = "drain"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Notice:
    """A request to all ranks: save and exit. ranks: those on the hosts that are being drained."""

    kind: NoticeKind
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupInfo:
    """What every rank of one generation receives when it enters the group.

    group: a name that is unique to this generation. avoid: names of checkpoints that a rank could not read.
    saved: name of the newest checkpoint that the run reported, None if it reported none.
    failures, trained_s: failures and seconds of training of the whole run so far.
    """

    group: str
    generation: int = 0
    avoid: frozenset[str] = frozenset()
    saved: str | None = None
    failures: int = 0
    trained_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a rank is doing.

    step: global steps done. since_s: seconds since phase or step changed. work_s: seconds of the rank's own work on
    a step, None when unknown. saved: name of the newest valid checkpoint it wrote. steps_reported: whether the
    training function has called `session.step`; before that, a rank without progress is not treated as hanging.
    scheduler_alive: False when this process started the group's MindSpore scheduler and the scheduler has ended.
    """

    phase: Phase = "starting"
    step: int = 0
    since_s: float = 0.0
    work_s: float | None = None
    saved: str | None = None
    steps_reported: bool = False
    scheduler_alive: bool = True
