"""Where a run's train.npz and test.npz are: in the run, or, for `data.prepared`, at the paths that a reference names.

The reference is a small object, `data/reference.json`, with a path and a checksum for each file. It is not a symbolic
link: some network file systems refuse those, and an object store has none.
"""

import json
from pathlib import Path

from orchestrator.errors import CorruptData
from orchestrator.job.run_directory import RunDirectory
from orchestrator.storage import ObjectMissing
from sdnet.data.checksums import checksums_of

REFERENCE = "data/reference.json"
_NAMES = ("train.npz", "test.npz")


def data_files(run: RunDirectory) -> tuple[Path, Path]:
    """train.npz and test.npz of the run, which may be missing. Raises CorruptData, StorageError."""
    paths = _referred(run)
    return (run.train_npz, run.test_npz) if paths is None else paths


def refer_to(run: RunDirectory, train: Path, test: Path) -> None:
    """Let the run use files outside of it. Raises InputError, OSError and StorageError."""
    paths = (train.resolve(), test.resolve())
    checksums = checksums_of(*paths)
    entries = {
        name: {"path": str(path), "sha256": checksums[name]} for name, path in zip(_NAMES, paths, strict=True)
    }
    run.storage.put(REFERENCE, (json.dumps(entries, indent=2) + "\n").encode())


def use_own_files(run: RunDirectory) -> None:
    """Let the run use the files in its own `data/` again."""
    run.storage.delete(REFERENCE)


def followed(path: Path) -> Path:
    """The path itself, or, for a data file that a run only refers to, the path in its reference.

    For paths that a person types, such as `<run>/data/test.npz`.
    """
    if path.exists() or path.name not in _NAMES or path.parent.name != "data":
        return path
    paths = _referred(RunDirectory(path.parent.parent))
    return path if paths is None else paths[_NAMES.index(path.name)]


def _referred(run: RunDirectory) -> tuple[Path, Path] | None:
    try:
        entries = json.loads(run.storage.get(REFERENCE))
        train, test = (Path(entries[name]["path"]) for name in _NAMES)
        return train, test
    except ObjectMissing:
        return None
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise CorruptData(
            str(run.root / REFERENCE), str(error), "delete it, and launch again: the launch writes a new one"
        ) from None
