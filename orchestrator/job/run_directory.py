"""The run directory: the path of every file of a run, and atomic writes of small files."""

import errno
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from orchestrator.storage import DirectoryStorage, lease
from orchestrator.storage.protocol import remedy_if_immutable
from orchestrator.telemetry import record, state
from sdnet.errors import InputError, shown
from sdnet.files import alone_in, open_regular, whole_file
from sdnet.paths import full_path, printable_path

# Room for what a group writes before it trains: logs, events, a rank table.
_PROBE_BYTES = 1 << 16
_OTHER_STORAGE = "give a writable directory in `storage`"
_REMEDY = "make it yours to read and write, or move it away"


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """Paths inside `<storage>/<name>/`; the interface between stages, tools and people."""

    root: Path

    @classmethod
    def of(cls, storage: str, name: str) -> "RunDirectory":
        root = full_path(storage, "storage") / name
        printable = printable_path(str(root))
        if printable != str(root):
            raise InputError(
                f"storage is {shown(printable)}; Ray Train writes only to folders with UTF-8 names: "
                "rename the folder, or give another one"
            )
        return cls(root)

    @property
    def storage(self) -> DirectoryStorage:
        """The same directory as storage of objects."""
        return DirectoryStorage(self.root)

    @property
    def job(self) -> Path:
        return self.root / "job.yaml"

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def states(self) -> Path:
        return self.root / state.FOLDER

    @property
    def summary(self) -> Path:
        return self.root / "summary.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def train_npz(self) -> Path:
        return self.data / "train.npz"

    @property
    def test_npz(self) -> Path:
        return self.data / "test.npz"

    @property
    def manifest(self) -> Path:
        return self.data / "manifest.json"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def compiled(self) -> Path:
        return self.root / "compiled"

    @property
    def plan(self) -> Path:
        return self.root / "plan"

    def make_root(self) -> None:
        """Make the directory alone, and prove that it can be written. Raises InputError."""
        _make_writable(self.root, _OTHER_STORAGE)

    def refuse_file_in_the_way(self) -> None:
        """Raise InputError, as `make_root` would, if a file is where a directory must be; nothing is created."""
        first = next(path for path in (self.root, *self.root.parents) if os.path.lexists(path))
        if not first.is_dir():
            reason = _leads_nowhere(self.root) or os.strerror(
                errno.EEXIST if first == self.root else errno.ENOTDIR
            )
            raise InputError(f"storage {self.root} cannot be written ({reason}); {_OTHER_STORAGE}")

    def refuse_without_rights(self) -> None:
        """Raise InputError, as `make_root` would, if this user may not write into a directory that exists."""
        first = next(path for path in (self.root, *self.root.parents) if path.exists())
        # A host without the mount has no storage directory, and says nothing about the rights there.
        if first in (self.root, self.root.parent) and not os.access(first, os.R_OK | os.W_OK | os.X_OK):
            reason = os.strerror(errno.EACCES)
            raise InputError(f"storage {self.root} cannot be written ({reason}); {_OTHER_STORAGE}")

    def refuse_unusable(self) -> None:
        """Raise InputError, as `create` would, for what is in the way in an existing run; nothing is created."""
        self.refuse_without_rights()
        for directory in self._folders():
            reason = _leads_nowhere(directory)
            if os.path.lexists(directory) and not directory.is_dir():
                reason = reason or os.strerror(errno.EEXIST)
            elif directory.exists() and not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
                reason = os.strerror(errno.EACCES)
            if reason:
                raise InputError(f"{directory} cannot be written ({reason}); {self._remedy(directory)}")
        self._refuse_wrong_files()

    def refuse_training(self) -> None:
        """Raise InputError while `sdnet train` works here; call it as the owner of the run. Raises OSError.

        The lock is not kept: a run is owned by its lease, also on storage without locks.
        """
        if self.checkpoints.is_dir():
            with alone_in(self.checkpoints):
                pass

    def create(self) -> None:
        """Make the directory and its folders, and prove that a run can use them.

        Raises InputError, which names what is in the way. Without this check a launch would fail hours later.
        """
        self.make_root()
        for directory in self._folders():
            _make_writable(directory, self._remedy(directory))
        self._refuse_wrong_files()

    def _folders(self) -> tuple[Path, ...]:
        """The folders that every launch uses."""
        segments, leases = self.root / record.FOLDER, self.root / lease.FOLDER
        return self.data, self.checkpoints, self.logs, self.plan, segments, leases, self.states

    def _refuse_wrong_files(self) -> None:
        """Raise InputError for a file that cannot be read, and for a folder or a pipe in the place of one."""
        for path in (self.job, self.events, self.summary, self.manifest):
            self._check_readable(path)
        written = (self.report, self.train_npz, self.test_npz)
        for path in (*written, *self.logs.glob("*.log"), *(self.root / lease.FOLDER).glob("[0-9]*")):
            if path.is_dir() or path.is_fifo():
                raise InputError(f"{path} is not a regular file; {self._remedy(path)}")

    def _check_readable(self, path: Path) -> None:
        try:
            open_regular(path).close()
        except FileNotFoundError:
            return
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}); {self._remedy(path)}") from None

    def _remedy(self, path: Path) -> str:
        """What to do about a path in the way; a restart leaves the data and the leases where they are."""
        stays = any(path.is_relative_to(folder) for folder in (self.data, self.root / lease.FOLDER))
        return _REMEDY if stays else f"{_REMEDY} (`launch --restart` does)"


def _make_writable(directory: Path, remedy: str) -> None:
    """Make a folder that is not there; raise InputError for one that cannot be listed and written."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as probe, os.scandir(directory):
            probe.write(bytes(_PROBE_BYTES))  # on a full disk a file can be created, but not filled
            probe.flush()
    except OSError as error:
        what = "storage " if remedy == _OTHER_STORAGE else ""
        reason = _leads_nowhere(directory) or error.strerror
        remedy += remedy_if_immutable(error)
        raise InputError(f"{what}{directory} cannot be written ({reason}); {remedy}") from None


def _leads_nowhere(path: Path) -> str:
    """What is wrong with a link whose target is not there, such as a file system that is not mounted; or empty."""
    return (
        f"it is a link to {path.readlink()}, which is not there"
        if path.is_symlink() and not path.exists()
        else ""
    )


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by a file with this text: readers see the old one or the new one, never a part."""
    with whole_file(path) as file:
        file.write(text.encode())
