"""What `status` and `logs` read: an existing run, its events as lines, a rank's output."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import OrchestratorError
from orchestrator.job.run_directory import RunDirectory
from orchestrator.report.lines import line_of
from orchestrator.storage import StorageError, StorageMisused
from orchestrator.telemetry import record, state
from sdnet.errors import InputError

# A run has one of these as soon as a launch has taken it.
_SIGNS = (state.FOLDER.rstrip("/"), record.FOLDER.rstrip("/"), record.MERGED)


def existing_run(path: Path) -> RunDirectory:
    """The run in this directory. Raises InputError when there is none."""
    try:
        found = any(_is_there(path / name) for name in _SIGNS)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a readable directory") from None
    if not found:
        raise InputError(f"{path} is not a run directory (it has no events); give <storage>/<name>")
    return RunDirectory(path)


@contextmanager
def reading(run: RunDirectory) -> Iterator[None]:
    """Name the run when its storage fails in this block: the name of an object alone says too little."""
    try:
        yield
    except StorageMisused as error:
        raise InputError(f"{run.root}/{error}") from None
    except StorageError as error:
        raise OrchestratorError(f"{run.root}/{error}") from None


def event_lines(run: RunDirectory) -> Iterator[str]:
    """A line for each event that is of interest to people. Raises InputError or OrchestratorError."""
    with reading(run):
        history = record.EventReader(run.storage).read()
    for recorded in history:
        text = line_of(recorded.event)
        if text:
            yield f"{text}\n"


def output_of(run: RunDirectory, rank: int) -> Iterator[str]:
    """The lines that a rank printed. Raises InputError when there are none, or none that may be read."""
    path = run.logs / f"rank_{rank}.log"
    if not path.is_file():
        ranks = sorted(log.stem for log in run.logs.glob("rank_*.log") if log.is_file())
        raise InputError(f"rank {rank} has no log in {run.logs}; there are: {', '.join(ranks) or 'none yet'}")
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            yield from lines
    except PermissionError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); ask its owner for access") from None


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
