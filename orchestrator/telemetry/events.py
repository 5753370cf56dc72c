"""Every event that this program records; `docs/events.md` is generated from this file.

Counts of steps are global steps: steps of the whole group, not of one rank. Seconds are wall-clock seconds.
"""

from dataclasses import dataclass

from orchestrator.telemetry.event import Event

# The run --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """A launch took ownership of the run. host, pid: of the launcher; run: its name, empty in older events."""

    run: str = ""
    host: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(Event):
    """A launch ended. status: succeeded, failed or stopped; reason: one line, null after success."""

    status: str
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRestarted(Event):
    """`launch --restart` began the run again at step 1. moved_to: folder with what earlier launches left."""

    moved_to: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted(Event):
    """A stage began: preprocess or train."""

    stage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFinished(Event):
    """A stage ended well. seconds: measured by the stage; patches, skipped: what `preprocess` made and left out."""

    stage: str
    seconds: float | None = None
    patches: dict[str, int] | None = None
    skipped: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving(Event):
    """The launcher asked the ranks to save and leave, because it must stop. ranks: how many."""

    ranks: int


# Preprocessing --------------------------------------------------------------------------------------------


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


# The life of a generation ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStarting(Event):
    """A generation of the group begins: one start of all its ranks."""

    generation: int
    world_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersStarted(Event):
    """The processes of all ranks run; they have not found each other yet."""

    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RankJoined(Event):
    """A rank entered the group. started: when its process started, in clock ticks after boot."""

    rank: int
    host: str
    pid: int
    started: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStarted(Event):
    """All ranks found each other and can compute."""

    generation: int
    world_size: int
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StandbysReady(Event):
    """Standby workers have imported everything and wait. started: how many were started this time."""

    started: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Straggler(Event):
    """A rank needs much longer for its own work than the others. factor: how many times the median."""

    rank: int
    host: str
    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HangFound(Event):
    """No rank makes progress. ranks: those that are behind; step: where they stand; host: of the first."""

    ranks: tuple[int, ...]
    step: int
    host: str


@dataclass(frozen=True, slots=True)
class RankEnd:
    """How one rank of a hanging group was ended. stacks: file with its stacks; problem: empty when none."""

    rank: int
    stacks: str
    problem: str
    gone: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupEnded(Event):
    """A hanging group was killed by its hosts, after the stacks of all ranks were saved."""

    generation: int
    ranks: tuple[RankEnd, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainNoticed(Event):
    """Ray drains a host of the group. left_s: seconds until its deadline, null when there is none."""

    hosts: tuple[str, ...]
    ranks: tuple[int, ...]
    left_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fenced(Event):
    """The last generation's ranks are gone. unreachable: hosts that could not be asked (Ray gave them up)."""

    ranks: tuple[int, ...]
    unreachable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftoversEnded(Event):
    """Processes of an earlier generation held devices of this host and were killed."""

    host: str
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureDetected(Event):
    """A generation failed. kind: see docs/faults.md; rank, host: where it began, null when nobody is to blame."""

    kind: str
    rank: int | None = None
    host: str | None = None
    detail: str = ""
    step: int = 0
    generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRestarting(Event):
    """The next generation will start."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GivingUp(Event):
    """No further generation will start."""

    reason: str


# Training -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(Event):
    """All ranks restored a checkpoint."""

    checkpoint: str
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled(Event):
    """The first step of a process was handed to the device. cached: whether compiled graphs were reused."""

    seconds: float
    cached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstStep(Event):
    """The first step of a generation is done."""

    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Event):
    """How far training is; every few seconds. steps: of the whole run, null when unknown."""

    step: int
    steps: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluating(Event):
    """An evaluation began."""

    epoch: int
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated(Event):
    """An evaluation ended."""

    epoch: int
    step: int
    fpr95: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch(Event):
    """An epoch ended. seconds, evaluate_s: of its steps and of its evaluation. losses: mean of each term.

    steps: of this epoch in this generation. epochs, total_steps: of the whole recipe.
    """

    epoch: int
    step: int
    loss: float
    losses: dict[str, float]
    lr: float
    steps: int
    seconds: float
    epochs: int | None = None
    total_steps: int | None = None
    fpr95: float | None = None
    accuracy: float | None = None
    evaluate_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSaved(Event):
    """A checkpoint is valid. stall_s: how long the step loop stood still; save_s: how long writing took."""

    step: int
    checkpoint: str
    stall_s: float
    save_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFailed(Event):
    """Storage refused a checkpoint; it is tried again."""

    step: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointCorrupt(Event):
    """A checkpoint is not what was written; it was marked, and an earlier one is used."""

    checkpoint: str
    detail: str


# Rehearsed faults -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultInjected(Event):
    """`drill` made a fault. at: when, in unix seconds of its host; proof: how it was seen to have happened.

    generation, step: of the group when it was chosen. damage, checkpoint: how which checkpoint was damaged.
    """

    number: int
    fault: str
    generation: int
    step: int
    rank: int
    host: str
    at: float
    proof: str
    damage: str | None = None
    checkpoint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReturned(Event):
    """A host that `drill` took away is back. problem: why it is not, or empty; note: what differs from before."""

    number: int
    host: str
    problem: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMissing(Event):
    """Ray did not list a host again that `drill` took away. waited_s: for how long `drill` waited."""

    number: int
    host: str
    waited_s: float


# Events themselves ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsLost(Event):
    """Storage was away for so long that this writer dropped its oldest events. count: how many."""

    count: int
