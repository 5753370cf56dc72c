"""The newest valid checkpoint of a run, from which the next generation resumes."""

import functools
import logging
import time
from collections.abc import Callable, Collection
from typing import Any

from orchestrator.engine.checkpoints.files import (
    FOLDER,
    MARKER,
    STATE,
    Encoded,
    checkpoint_names,
    corrupt_checkpoint,
    exists,
    found_objects,
    is_name,
    order_of,
    read_checkpoint,
    read_fields,
)
from orchestrator.errors import CorruptData, InputError
from orchestrator.storage import (
    ObjectMissing,
    Storage,
    StorageError,
    StorageMisused,
    StorageUnavailable,
    takes_writes,
)
from orchestrator.storage.retry import RETRY_AFTER_S, retried

logger = logging.getLogger(__name__)

_NAMED = 3  # how many checkpoints of a kind a message lists
_SECOND_READ_AFTER_S = 2.0


class CheckpointsLost(InputError):
    """A run saved checkpoints and has no valid one any more. Example: somebody emptied the folder.

    saved: name of the newest checkpoint that the run reported. corrupt: names of the corrupt checkpoints in storage.
    incomplete: names of those whose `state.json` is gone, or was never written.
    """

    def __init__(
        self, folder: str, saved: str | None, corrupt: tuple[str, ...], incomplete: tuple[str, ...] = ()
    ):
        super().__init__(folder, saved, corrupt, incomplete)
        self.folder, self.saved, self.corrupt, self.incomplete = folder, saved, corrupt, incomplete

    @property
    def problem(self) -> str:
        """What is wrong, without the remedy."""
        kinds = {"corrupt": self.corrupt, "without state.json": self.incomplete}
        state = (
            "; ".join(f"{kind}: {_listed(names)}" for kind, names in kinds.items() if names) or "all are gone"
        )
        saved = f", although the run saved {self.saved}" if self.saved else ""
        return f"{self.folder} has no valid checkpoint{saved} ({state})"

    def __str__(self) -> str:
        return f"{self.problem}; put one back, or give the run another name to train from step 1"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def newest_valid(
    storage: Storage,
    avoid: Collection[str] = (),
    known: str | None = None,
    wait: Callable[[float], None] = time.sleep,
    *,
    mark: bool = True,
    finished: bool = False,
) -> tuple[str | None, Encoded | None, list[CorruptData]]:
    """The newest checkpoint whose checksums match, with its content, and the corrupt ones that were newer.

    The caller reports corrupt checkpoints. Those with other bytes than were written are marked, so that nothing reads
    them again. avoid: names to skip. known: a name that another process reported. A listing may lag, so this name is
    tried even if it is not listed. mark: False only looks, and writes nothing.

    A checkpoint that cannot be read twice while storage works, as on a bad disk block, counts as corrupt, if there is
    an earlier one and the run has not `finished`. Raises StorageUnavailable otherwise.
    """
    corrupt: list[CorruptData] = []
    names = checkpoint_names(storage)
    heard_of = known if known is not None and known not in names and is_name(known) else None
    if heard_of is not None and not exists(storage, f"{FOLDER}{heard_of}/{MARKER}"):
        names = sorted([*names, heard_of], key=order_of)
    for name in reversed(names):
        if name in avoid:
            continue
        read = functools.partial(read_checkpoint, storage, name)
        if not finished and name != names[0]:
            read = functools.partial(_read_or_corrupt, storage, name, wait, mark)
        try:
            return (
                name,
                retried(read, ObjectMissing, wait, RETRY_AFTER_S if name == heard_of else ()),
                corrupt,
            )
        except ObjectMissing:
            continue  # pruned after it was listed, or lost
        except CorruptData as error:
            unreadable = isinstance(error.__cause__, StorageUnavailable)  # here; another host may read it
            if mark and not unreadable:
                _mark(storage, name, error)
            corrupt.append(error)
    return None, None, corrupt


def _read_or_corrupt(storage: Storage, name: str, wait: Callable[[float], None], probe: bool) -> Encoded:
    """`read_checkpoint`; one that cannot be read twice is corrupt. probe: also ask whether storage takes writes."""
    try:
        return read_checkpoint(storage, name)
    except StorageUnavailable:
        if probe and not takes_writes(storage, FOLDER):
            raise
    wait(_SECOND_READ_AFTER_S)
    try:
        return read_checkpoint(storage, name)
    except StorageUnavailable as error:
        raise corrupt_checkpoint(name, f"{error.name} cannot be read: {error.detail}") from error


def _mark(storage: Storage, name: str, error: CorruptData) -> None:
    try:
        storage.put(f"{FOLDER}{name}/{MARKER}", f"{error}\n".encode())
    except StorageMisused as problem:  # without the marker, the next reader checks its checksums again
        logger.warning("%s could not be marked: %s", name, problem)


def refuse_lost(storage: Storage, saved: str | None, corrupt: Collection[str] = ()) -> None:
    """Raise CheckpointsLost if the run saved checkpoints earlier; call it when no checkpoint is valid.

    A silent start from step 1 would hide that hours of work are lost. saved: name of the newest known checkpoint.
    corrupt: names of corrupt ones that may have no marker.
    """
    found = found_objects(storage)
    lost = {name for name, files in found.items() if MARKER in files}.union(corrupt)
    if saved or lost:
        incomplete = {name for name, files in found.items() if STATE not in files} - lost
        folder = f"{storage.describe()}/{FOLDER.rstrip('/')}"
        raise CheckpointsLost(
            folder, saved, tuple(sorted(lost, key=order_of)), tuple(sorted(incomplete, key=order_of))
        )


def newest_fields(storage: Storage) -> dict[str, Any]:
    """`read_fields` of the newest checkpoint that has readable ones; empty without one."""
    for name in reversed(checkpoint_names(storage)):
        try:
            return read_fields(storage, name)
        except (StorageError, CorruptData):
            continue  # a corrupt checkpoint is judged when it is resumed
    return {}
