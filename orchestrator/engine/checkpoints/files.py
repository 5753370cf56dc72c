"""The checkpoints of a run in storage: how one is written, becomes valid, and is read.

A checkpoint is the set of objects `checkpoints/<name>/...`. The data objects are written first and `state.json` last.
A checkpoint without `state.json` does not count, so a writer that dies halfway leaves nothing that is ever loaded.
`state.json` has the size and SHA-256 of every data object, and a checksum of itself.

A name is never used twice: a writer that we believe dead may still write, and must not mix its objects with ours.
A corrupt checkpoint gets a marker object and is kept for inspection.
"""

import hashlib
import json
import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import CorruptData
from orchestrator.storage import ObjectMissing, Storage, StorageMisused

logger = logging.getLogger(__name__)

FOLDER, STATE, MARKER = "checkpoints/", "state.json", "corrupt"
_NAME = re.compile(r"step_(\d{8,})(?:\.(\d+))?")
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


def is_name(text: str) -> bool:
    """Whether a text has the form of a checkpoint's name."""
    return _NAME.fullmatch(text) is not None


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
            raise corrupt_checkpoint(name, f"{file} is missing") from error
        except StorageMisused as error:
            raise corrupt_checkpoint(name, f"{file} cannot be read: {error.detail}") from error
        except ValueError as error:
            raise corrupt_checkpoint(name, f"{STATE} is not what was written") from error
        if _checksum(content) != expected:
            raise corrupt_checkpoint(
                name, f"{file} has {len(content)} bytes with another checksum than was written"
            )
        files[file] = content
    encoded = Encoded(files, fields)
    if encoded.step != step_of(name):
        raise corrupt_checkpoint(name, f"it is of step {encoded.step}")
    return encoded


def read_fields(storage: Storage, name: str) -> dict[str, Any]:
    """The content of a checkpoint's `state.json`, `files` included. Raises CorruptData, ObjectMissing."""
    try:
        content = storage.get(f"{FOLDER}{name}/{STATE}")
    except StorageMisused as error:
        raise corrupt_checkpoint(name, f"{STATE} cannot be read: {error.detail}") from error
    try:
        fields: dict[str, Any] = json.loads(content)
        expected = fields.pop("sha256")
        whole = isinstance(fields["step"], int) and isinstance(fields.get("metrics", {}), dict)
        fields["files"].items()
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise corrupt_checkpoint(name, f"{STATE} is not what was written") from error
    if not whole or hashlib.sha256(_canonical(fields)).hexdigest() != expected:
        raise corrupt_checkpoint(name, f"{STATE} is not what was written")
    return fields


def checkpoint_names(storage: Storage) -> list[str]:
    """Names of the checkpoints with a `state.json` and without a marker, oldest first."""
    found = found_objects(storage).items()
    return sorted((n for n, files in found if STATE in files and MARKER not in files), key=order_of)


def found_objects(storage: Storage) -> dict[str, set[str]]:
    """The object names below each checkpoint name in the listing."""
    found: dict[str, set[str]] = {}
    for path in storage.list(FOLDER):
        name, _, file = path.removeprefix(FOLDER).partition("/")
        if _NAME.fullmatch(name):
            found.setdefault(name, set()).add(file)
    return found


def has_state(storage: Storage, name: str) -> bool:
    """Whether the checkpoint has a `state.json`."""
    return exists(storage, f"{FOLDER}{name}/{STATE}")


def exists(storage: Storage, path: str) -> bool:
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


def corrupt_checkpoint(name: str, detail: str) -> CorruptData:
    """The error that says what is wrong with a checkpoint."""
    return CorruptData(f"checkpoint {name}", detail, "an earlier checkpoint is used")
