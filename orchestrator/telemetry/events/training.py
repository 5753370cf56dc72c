"""Events of the training itself: steps, epochs and checkpoints."""

from dataclasses import dataclass

from orchestrator.telemetry.event import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(Event):
    """A generation resumes from a checkpoint; all its ranks load the same one."""

    checkpoint: str
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled(Event):
    """The first step has compiled its graphs. cached: whether graphs of an earlier start were reused.

    seconds: since the training function began.
    """

    seconds: float
    cached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstStep(Event):
    """The first step of a generation is done."""

    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Event):
    """How far training is, every few seconds. steps: of the whole run, null when unknown."""

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
    """A checkpoint is valid. stall_s: how long the step loop was blocked; save_s: how long writing took."""

    step: int
    checkpoint: str
    stall_s: float
    save_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFailed(Event):
    """Storage refused to write a checkpoint. Every refused attempt is one event."""

    step: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointCorrupt(Event):
    """A checkpoint does not match its checksums, and was marked, or cannot be read; an earlier one is used."""

    checkpoint: str
    detail: str
