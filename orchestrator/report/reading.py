"""What `status` and `logs` read: an existing run, its events as lines, a rank's output."""

import codecs
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import OrchestratorError
from orchestrator.job.run_directory import RunDirectory
from orchestrator.report.lines import line_of
from orchestrator.storage import ObjectMissing, Storage, StorageError, StorageMisused, lease
from orchestrator.telemetry import record, state
from sdnet.errors import InputError

# A run has one of these as soon as a launch has taken it: a file, or a name in a folder. The folders alone prove
# nothing, because other programs also name theirs so.
_SIGNS = (
    (lease.FOLDER, re.compile(r"\d{6,}")),
    (state.FOLDER, re.compile(r"\d{6,}\.json")),
    (record.FOLDER, re.compile(r"\d{6,}|.+-\d+-[0-9a-f]{6}")),  # of a lease; of a writer without one
    ("", re.compile(re.escape(record.MERGED))),
)
_PIECE_BYTES = 1 << 20


def existing_run(path: Path) -> RunDirectory:
    """The run in this directory. Raises InputError when there is none."""
    try:
        if not path.is_dir():
            state = "is a file" if path.exists() else "is not there"
            raise InputError(f"{path} {state}; give <storage>/<name>, and mount the storage if it is away")
        found = any(_has_name(path / folder, name) for folder, name in _SIGNS)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a readable directory") from None
    if not found:
        raise InputError(f"{path} is not a run directory (it has no events); give <storage>/<name>")
    # `.` and `..` are no names of a run.
    return RunDirectory(path if path.name not in ("", "..") else path.resolve())


@contextmanager
def reading(run: RunDirectory) -> Iterator[None]:
    """Add the run's path to storage errors of this block: an object's name alone does not identify the run."""
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
    """What a rank printed, in pieces. Raises InputError when it has no log, or the log cannot be read."""
    path = run.logs / f"rank_{rank}.log"
    text = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")("replace"), translate=True)
    with reading(run):
        try:
            for piece in _pieces(run.storage, f"{run.logs.name}/{path.name}"):
                yield text.decode(piece)
        except ObjectMissing:
            raise InputError(
                f"rank {rank} has no log in {run.logs}; there are: {', '.join(_logs(run)) or 'none yet'}"
            ) from None
        except StorageMisused as error:
            raise InputError(
                f"{path} cannot be read ({error.detail}); correct its type or its permissions"
            ) from None
    yield text.decode(b"", final=True)


def _pieces(storage: Storage, name: str) -> Iterator[bytes]:
    start = 0
    while piece := storage.get_range(name, start, _PIECE_BYTES):
        yield piece
        start += len(piece)


def _logs(run: RunDirectory) -> list[str]:
    """The ranks that have a log, as `rank_0`."""
    prefix = f"{run.logs.name}/"
    names = run.storage.list(f"{prefix}rank_")
    return [name.removeprefix(prefix).removesuffix(".log") for name in names if name.endswith(".log")]


def _has_name(folder: Path, name: re.Pattern[str]) -> bool:
    try:
        return any(name.fullmatch(found.name) for found in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False
