"""The checkpoints of a run in storage: how one becomes valid, and which is the newest valid one.

A checkpoint is the set of objects `checkpoints/<name>/...`. The data objects are written first and `state.json` last.
A checkpoint without `state.json` does not count, so a writer that dies halfway leaves nothing that is ever loaded.
`state.json` has the size and SHA-256 of every data object, and a checksum of itself.

A name is never used twice: a writer that we believe dead may still write, and must not mix its objects with ours.
A corrupt checkpoint gets a marker object and is kept for inspection.
"""

import functools
import hashlib
import json
import logging
import math
import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import CorruptData, InputError
from orchestrator.storage import ObjectMissing, Storage, StorageError, StorageMisused, StorageUnavailable
from orchestrator.storage.retry import RETRY_AFTER_S, retried

logger = logging.getLogger(__name__)

FOLDER, STATE, MARKER = "checkpoints/", "state.json", "corrupt"
_NAME = re.compile(r"step_(\d{8,})(?:\.(\d+))?")
_NAMED = 3  # how many corrupt checkpoints a message lists
_MOST_NAMES = 100  # how many names of one step a save tries; all are taken only if storage itself is blocked


@dataclass(frozen=True, slots=True)
class Encoded:
    """A checkpoint's data objects by name, and the fields of its `state.json` except the checksums."""

    files: Mapping[str, bytes]
    fields: Mapping[str, Any]

    @property
    def step(self) -> int:
        """Global steps done."""
        return int(self.fields["step"])

    @property
    def metrics(self) -> Mapping[str, float]:
        """Metrics of these weights, such as a validation loss; may be empty. NaN: the value was not finite."""
        stored: Mapping[str, float | None] = self.fields.get("metrics", {})
        return {name: math.nan if value is None else value for name, value in stored.items()}


class CheckpointsLost(InputError):
    """A run saved checkpoints and has no valid one any more. Example: somebody emptied the folder.

    saved: name of the newest checkpoint that the run reported. corrupt: names of the corrupt checkpoints in storage.
    """

    def __init__(self, folder: str, saved: str | None, corrupt: tuple[str, ...]):
        super().__init__(folder, saved, corrupt)
        self.folder, self.saved, self.corrupt = folder, saved, corrupt

    @property
    def problem(self) -> str:
        """What is wrong, without the remedy."""
        named = ", ".join(self.corrupt[:_NAMED]) + (", ..." if len(self.corrupt) > _NAMED else "")
        state = f"corrupt: {named}" if self.corrupt else "all are gone"
        saved = f", although the run saved {self.saved}" if self.saved else ""
        return f"{self.folder} has no valid checkpoint{saved} ({state})"

    def __str__(self) -> str:
        return f"{self.problem}; put one back, or give the run another name to train from step 1"


def step_of(name: str) -> int:
    """Global steps of a checkpoint, from its name. Raises ValueError."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is not the name of a checkpoint")
    return int(match[1])


def write_checkpoint(
    storage: Storage, encoded: Encoded, check_owner: Callable[[], None] = lambda: None
) -> str:
    """Store a checkpoint and return its name. Raises StorageError.

    Safe to repeat: if a valid checkpoint with the same content exists, nothing is written and its name is returned.
    check_owner: called just before `state.json` is written. If it raises, the checkpoint never becomes valid.
    """
    checksums = {name: _checksum(content) for name, content in encoded.files.items()}
    content = {**encoded.fields, "files": checksums}
    newest = _newest_of_step(storage, encoded.step)
    if newest is not None and _same(storage, newest, content):
        return newest
    name = _claim_name(storage, encoded, newest)
    for file, data in list(encoded.files.items())[1:]:
        storage.put(f"{FOLDER}{name}/{file}", data)
    signed = {**content, "sha256": hashlib.sha256(_canonical(content)).hexdigest()}
    check_owner()
    storage.put(f"{FOLDER}{name}/{STATE}", json.dumps(signed, indent=2).encode())
    return name


def read_checkpoint(storage: Storage, name: str) -> Encoded:
    """Every object of a checkpoint, compared with its checksum. Raises CorruptData, ObjectMissing, StorageError."""
    fields = read_fields(storage, name)
    files = {}
    for file, expected in fields.pop("files").items():
        try:
            content = storage.get(f"{FOLDER}{name}/{file}")
        except ObjectMissing as error:
            storage.get(f"{FOLDER}{name}/{STATE}")  # raises ObjectMissing if the checkpoint was just pruned
            raise _corrupt(name, f"{file} is missing") from error
        except StorageMisused as error:
            raise _corrupt(name, f"{file} cannot be read: {error.detail}") from error
        except ValueError as error:
            raise _corrupt(name, f"{STATE} is not what was written") from error
        if _checksum(content) != expected:
            raise _corrupt(name, f"{file} has {len(content)} bytes with another checksum than was written")
        files[file] = content
    encoded = Encoded(files, fields)
    if encoded.step != step_of(name):
        raise _corrupt(name, f"it is of step {encoded.step}")
    return encoded


def read_fields(storage: Storage, name: str) -> dict[str, Any]:
    """The content of a checkpoint's `state.json`, `files` included. Raises CorruptData, ObjectMissing."""
    try:
        content = storage.get(f"{FOLDER}{name}/{STATE}")
    except StorageMisused as error:
        raise _corrupt(name, f"{STATE} cannot be read: {error.detail}") from error
    try:
        fields: dict[str, Any] = json.loads(content)
        expected = fields.pop("sha256")
        whole = isinstance(fields["step"], int) and isinstance(fields.get("metrics", {}), dict)
        fields["files"].items()
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise _corrupt(name, f"{STATE} is not what was written") from error
    if not whole or hashlib.sha256(_canonical(fields)).hexdigest() != expected:
        raise _corrupt(name, f"{STATE} is not what was written")
    return fields


def checkpoint_names(storage: Storage) -> list[str]:
    """Names of the checkpoints with a `state.json` and without a marker, oldest first."""
    found = found_objects(storage).items()
    return sorted((n for n, files in found if STATE in files and MARKER not in files), key=order_of)


def newest_fields(storage: Storage) -> dict[str, Any]:
    """`read_fields` of the newest checkpoint that has readable ones; empty without one."""
    for name in reversed(checkpoint_names(storage)):
        try:
            return read_fields(storage, name)
        except (StorageError, CorruptData):
            continue  # a corrupt checkpoint is judged when it is resumed
    return {}


def found_objects(storage: Storage) -> dict[str, set[str]]:
    """The object names below each checkpoint name in the listing."""
    found: dict[str, set[str]] = {}
    for path in storage.list(FOLDER):
        name, _, file = path.removeprefix(FOLDER).partition("/")
        if _NAME.fullmatch(name):
            found.setdefault(name, set()).add(file)
    return found


def newest_valid(
    storage: Storage,
    avoid: Collection[str] = (),
    known: str | None = None,
    wait: Callable[[float], None] = time.sleep,
    mark: bool = True,
) -> tuple[str | None, Encoded | None, list[CorruptData]]:
    """The newest checkpoint whose checksums match, with its content, and the corrupt ones that were newer.

    Corrupt checkpoints are marked, so that nothing reads them again; the caller reports them. mark: False only looks.
    avoid: names to skip.
    known: a name that another process reported. A listing may lag, so this name is tried even if it is not listed.
    """
    corrupt: list[CorruptData] = []
    names = checkpoint_names(storage)
    heard_of = known if known is not None and known not in names and _NAME.fullmatch(known) else None
    if heard_of is not None and not _exists(storage, f"{FOLDER}{heard_of}/{MARKER}"):
        names = sorted([*names, heard_of], key=order_of)
    for name in reversed(names):
        if name in avoid:
            continue
        read = functools.partial(read_checkpoint, storage, name)
        try:
            return (
                name,
                retried(read, ObjectMissing, wait, RETRY_AFTER_S if name == heard_of else ()),
                corrupt,
            )
        except ObjectMissing:
            continue  # pruned after it was listed, or lost
        except CorruptData as error:
            if mark:
                _mark(storage, name, error)
            corrupt.append(error)
    return None, None, corrupt


def _mark(storage: Storage, name: str, error: CorruptData) -> None:
    try:
        storage.put(f"{FOLDER}{name}/{MARKER}", f"{error}\n".encode())
    except StorageMisused as problem:  # without the marker, the next reader checks its checksums again
        logger.warning("%s could not be marked: %s", name, problem)


def refuse_lost(storage: Storage, saved: str | None, corrupt: Collection[str] = ()) -> None:
    """Raise CheckpointsLost if the run saved checkpoints earlier; call it when no checkpoint is valid.

    A silent start from step 1 would hide that hours of work are lost. saved: name of the newest known checkpoint.
    corrupt: names of corrupt ones that may have no marker. Raises StorageUnavailable if nothing of the run is there: a
    mount that is away looks like an empty folder.
    """
    if saved and not storage.list(""):
        raise StorageUnavailable(FOLDER, f"{storage.describe()} is empty or not mounted")
    marked = {
        path.removeprefix(FOLDER).partition("/")[0]
        for path in storage.list(FOLDER)
        if path.endswith(f"/{MARKER}")
    }
    marked.update(corrupt)
    if saved or marked:
        raise CheckpointsLost(f"{storage.describe()}/{FOLDER.rstrip('/')}", saved, tuple(sorted(marked)))


def has_state(storage: Storage, name: str) -> bool:
    """Whether the checkpoint has a `state.json`."""
    return _exists(storage, f"{FOLDER}{name}/{STATE}")


def _exists(storage: Storage, path: str) -> bool:
    """Looks up the object itself, because a listing may lag. An object that may not be read exists."""
    try:
        storage.get_range(path, 0, 1)
    except ObjectMissing:
        return False
    except StorageMisused:  # no access
        return True
    return True


def _newest_of_step(storage: Storage, step: int) -> str | None:
    """The newest name of this step in the listing, with or without a `state.json`."""
    used = {path.removeprefix(FOLDER).partition("/")[0] for path in storage.list(f"{FOLDER}step_{step:08d}")}
    used = {name for name in used if _NAME.fullmatch(name) and step_of(name) == step}
    return max(used, key=order_of, default=None)


def _claim_name(storage: Storage, encoded: Encoded, newest: str | None) -> str:
    """A name that no other writer uses.

    A listing may lag and two writers may run at once, so a listing cannot prove that a name is free. Creating the
    first data object claims the name: `create` lets only one writer win. It also accepts an object with the same
    bytes, so a retry after a failed write takes its own name again. A folder without access counts as taken.
    """
    begin = 1 if newest is None else order_of(newest)[1]
    first = next(iter(encoded.files.items()), None)
    for number in range(begin, begin + _MOST_NAMES):
        name = f"step_{encoded.step:08d}" + (f".{number}" if number > 1 else "")
        if not has_state(storage, name) and (
            first is None or storage.create(f"{FOLDER}{name}/{first[0]}", first[1])
        ):
            return name
    storage.get_range(f"{FOLDER}{name}/{STATE}", 0, 1)  # raises why no name can be read
    raise StorageMisused(f"{FOLDER}{name}", f"it and {_MOST_NAMES - 1} names before it are taken")


def _same(storage: Storage, name: str, content: dict[str, Any]) -> bool:
    """Whether a valid checkpoint of this name has the same content."""
    try:
        found = read_checkpoint(storage, name)
        return json.loads(_canonical(content)) == {
            **found.fields,
            "files": read_fields(storage, name)["files"],
        }
    except (CorruptData, ObjectMissing):
        return False


def order_of(name: str) -> tuple[int, int]:
    """Sort key of checkpoint names, from old to new: the step, then the number of the attempt."""
    match = _NAME.fullmatch(name)
    assert match is not None, name
    return int(match[1]), int(match[2] or 1)


def _canonical(content: Mapping[str, object]) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def _checksum(content: bytes) -> dict[str, object]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def _corrupt(name: str, detail: str) -> CorruptData:
    return CorruptData(f"checkpoint {name}", detail, "an earlier checkpoint is used")
