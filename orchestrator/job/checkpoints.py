"""Which checkpoint the job resumes from, and when to refuse to begin again."""

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.engine.checkpoints import CheckpointsLost, found_objects, newest_valid, refuse_lost
from orchestrator.job.run_directory import RunDirectory
from orchestrator.telemetry.event import Event
from orchestrator.telemetry.events import CheckpointCorrupt
from orchestrator.telemetry.state import read_state
from sdnet.errors import InputError


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest valid checkpoint of a run, and the global steps done in it."""

    name: str
    step: int


def holds_checkpoints(run: RunDirectory) -> bool:
    """Whether training has left a checkpoint, valid or corrupt. A listing may lag, so the state is asked, too."""
    return bool(found_objects(run.storage)) or read_state(run.storage).saved is not None


def newest_checkpoint(
    run: RunDirectory, record: Callable[[Event], None], finished_with: str | None = None
) -> Newest | None:
    """The newest valid checkpoint; None for a run that has saved none. Corrupt ones are marked and recorded.

    finished_with: name of the last checkpoint of a run that has finished. Raises InputError when the run saved
    checkpoints and none is valid.
    """
    saved = finished_with or read_state(run.storage).saved
    name, encoded, corrupt = newest_valid(run.storage, known=saved)
    for error in corrupt:
        record(CheckpointCorrupt(checkpoint=error.name.removeprefix("checkpoint "), detail=error.detail))
    if name is not None and encoded is not None:
        return Newest(name, encoded.step)
    try:
        refuse_lost(run.storage, saved)
    except CheckpointsLost as error:
        finished = "the run has finished, but " if finished_with else ""
        remedy = "put one back, or launch with --restart to train from step 1"
        raise InputError(f"{finished}{error.problem}; {remedy}") from None
    return None
