"""`state.json`: where a run stands. The program decides from it, never from the events.

The launcher writes it before and after a group, the group's controller while the group exists.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import CorruptData
from orchestrator.storage import ObjectMissing, Storage

NAME = "state.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process on a host. started: clock ticks after boot, which distinguish it from a later one of this pid."""

    host: str
    pid: int
    started: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The process of a launch. mark: `processes.process_mark`, which no other process ever has."""

    host: str
    pid: int
    mark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A generation that failed. kind: the kind of failure; step: global steps done by then."""

    kind: str
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """All that the next launch must know.

    owner: the launcher, null when none runs. generation: number of the newest generation, 0 before the first.
    ranks: the processes of that generation, by rank; empty once they are known to be gone.
    saved: name of the newest checkpoint that a rank reported. attempts: failures since the launch began.
    trained_s, failures: over all launches, for the checkpoint interval.
    ended: why the last launch ended, null while one runs.
    """

    owner: Owner | None = None
    generation: int = 0
    ranks: dict[str, Process] = field(default_factory=dict)
    saved: str | None = None
    attempts: tuple[Attempt, ...] = ()
    trained_s: float = 0.0
    failures: int = 0
    ended: str | None = None


def read_state(storage: Storage) -> RunState:
    """The run's state; the initial one for a new run. Raises CorruptData or StorageError."""
    try:
        content = storage.get(NAME)
    except ObjectMissing:
        return RunState()
    try:
        return _state_from_dict(json.loads(content))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorruptData(
            f"{storage.describe()}/{NAME}",
            f"not a run state: {error}",
            "remove the file to resume from checkpoints",
        ) from error


def write_state(storage: Storage, state: RunState) -> None:
    """Replace the run's state. Raises StorageError."""
    storage.put(NAME, (json.dumps(dataclasses.asdict(state), indent=2) + "\n").encode())


def _state_from_dict(raw: dict[str, Any]) -> RunState:
    owner = raw["owner"]
    return RunState(
        owner=None if owner is None else Owner(**owner),
        generation=int(raw["generation"]),
        ranks={str(rank): Process(**process) for rank, process in raw["ranks"].items()},
        saved=raw.get("saved"),
        attempts=tuple(Attempt(**attempt) for attempt in raw["attempts"]),
        trained_s=float(raw["trained_s"]),
        failures=int(raw["failures"]),
        ended=raw["ended"],
    )
