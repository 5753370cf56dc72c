"""Events of a run and its stages, and one about lost events."""

from dataclasses import dataclass

from orchestrator.telemetry.event import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """A launch took ownership of the run. host, pid: of the launcher.

    run: its name, empty in older events. lease: number of its lease, 0 in older events.
    """

    run: str = ""
    host: str
    pid: int
    lease: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(Event):
    """A launch ended. status: succeeded, failed or stopped; reason: one line, null after success.

    lease: number of its lease, 0 in older events.
    """

    status: str
    reason: str | None = None
    lease: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRestarted(Event):
    """`launch --restart` began the run again at step 1. moved_to: folder with the files of earlier launches."""

    moved_to: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted(Event):
    """A stage began: preprocess or train."""

    stage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFinished(Event):
    """A stage succeeded. seconds: measured by the stage; patches, skipped: what `preprocess` made and left out."""

    stage: str
    seconds: float | None = None
    patches: dict[str, int] | None = None
    skipped: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving(Event):
    """The launcher asked the ranks to save and exit, because it must stop. ranks: how many."""

    ranks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardDone(Event):
    """A shard of image pairs became patches. skipped: bad images; done, shards: progress of the stage."""

    shard: str
    patches: int
    skipped: int
    done: int
    shards: int
    pairs_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardLost(Event):
    """The worker of a shard died; the shard is started again. times: how often it was lost so far."""

    shard: str
    times: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsLost(Event):
    """Storage was away for so long that this writer dropped its oldest events. count: how many."""

    count: int
