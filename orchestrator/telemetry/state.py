"""`state/<lease>.json`: the state of a run. The program makes its decisions from it, never from the events.

The launcher writes it before and after a group, the group's controller while the group exists. Each lease of the run
has its own file, so a launch that lost the run cannot overwrite the state of the launch that took it.
"""

import contextlib
import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import CorruptData
from orchestrator.storage import ObjectMissing, Storage
from orchestrator.storage.lease import newest_lease
from orchestrator.telemetry.event import typed_value

FOLDER = "state/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process on a host. started: clock ticks after boot, which distinguish it from a later one of this pid."""

    host: str
    pid: int
    started: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A generation that failed. kind: the kind of failure; step: global steps done by then."""

    kind: str
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """Everything that the next launch must know.

    lease: of the launch that wrote it, 0 without one. generation: number of the newest generation, 0 before the first.
    ranks: the processes of that generation, by rank; empty once they are known to have ended.
    saved: name of the newest checkpoint that a rank reported. attempts: generations that failed since the launch
    began. trained_s, failures: over all launches, for the checkpoint interval; preemptions are not counted.
    ended: why the last launch ended, null while one runs and after success.
    """

    lease: int = 0
    generation: int = 0
    ranks: dict[str, Process] = field(default_factory=dict)
    saved: str | None = None
    attempts: tuple[Attempt, ...] = ()
    trained_s: float = 0.0
    failures: int = 0
    ended: str | None = None


def read_state(storage: Storage, lease: int | None = None) -> RunState:
    """The state that the launch with this lease wrote, or the newest launch before it; the initial one for a new run.

    lease: None is the newest. A launch must give its own, because another launch may own the run by now. Raises
    CorruptData or StorageError.
    """
    newest = newest_lease(storage) if lease is None else lease
    for number in range(newest, -1, -1):
        with contextlib.suppress(ObjectMissing):
            return _parse(storage, state_name(number))
    return RunState()


def write_state(storage: Storage, state: RunState) -> None:
    """Replace the state of its lease. Raises StorageError."""
    storage.put(state_name(state.lease), (json.dumps(dataclasses.asdict(state), indent=2) + "\n").encode())


def state_name(lease: int) -> str:
    """Name of the object with the state of a lease."""
    return f"{FOLDER}{lease:06d}.json"


def _parse(storage: Storage, name: str) -> RunState:
    content = storage.get(name)
    try:
        return _state_from_dict(json.loads(content))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise CorruptData(
            f"{storage.describe()}/{name}",
            f"not a run state: {error}",
            "remove the file to resume from checkpoints",
        ) from error


def _state_from_dict(raw: dict[str, Any]) -> RunState:
    raw = {"saved": None, **raw}  # an older version did not record it
    state = typed_value({field.name: raw[field.name] for field in dataclasses.fields(RunState)}, RunState)
    assert isinstance(state, RunState)
    for rank, process in state.ranks.items():
        if not (rank.isascii() and rank.isdigit()) or process.pid < 1:
            raise ValueError(f"rank {rank} is process {process.pid}")
    return state
