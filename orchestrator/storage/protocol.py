"""What the program needs from storage, and the only ways in which storage may fail.

An object is named by a relative path with `/` between its parts, such as `checkpoints/step_00000010/state.json`.
The operations are few, so that a directory and an object store can both offer them. There is no rename, no
append, no link, no lock and no modification time.
"""

import errno
import os
from typing import Protocol

from orchestrator.errors import OrchestratorError

_NOT_PERMITTED = os.strerror(errno.EPERM)
_IF_IMMUTABLE = "if it or its folder is immutable (`lsattr -d`), run `chattr -i`, or ask its owner"


def remedy_if_immutable(error: OSError) -> str:
    """To append to a remedy: even root gets EPERM for an immutable file, and in an immutable folder. Else empty."""
    return f"; {_IF_IMMUTABLE}" if error.errno == errno.EPERM else ""


class StorageError(OrchestratorError):
    """Storage did not do what it was asked; `name` is the object, `detail` the system's reason."""

    def __init__(self, name: str, detail: str):
        super().__init__(name, detail)
        self.name, self.detail = name, detail


class ObjectMissing(StorageError):
    """No object has this name. A listing may still show it for a while: listings are hints."""

    def __str__(self) -> str:
        return f"{self.name} does not exist ({self.detail})"


class StorageUnavailable(StorageError):
    """Storage is away, full or failing; the same call may succeed later. Example: a mount without a server."""

    def __str__(self) -> str:
        # A lost mount answers EPERM, too.
        remedy = (
            f"mount the storage; {_IF_IMMUTABLE}"
            if _NOT_PERMITTED in self.detail
            else "mount or free the storage"
        )
        return f"{self.name} cannot be reached or written ({self.detail}); {remedy}"


class StorageMisused(StorageError):
    """The call can never succeed until a person changes something. Example: a folder has the file's name."""

    def __str__(self) -> str:
        return f"{self.name} cannot be used ({self.detail}); correct its type or its permissions"


class Storage(Protocol):
    """Complete objects by name. Every method raises `StorageError` and nothing else.

    Implementations are small values that can be sent to another process.
    """

    def put(self, name: str, content: bytes) -> None:
        """Store the object. Readers see the old content or the new, never a part."""

    def get(self, name: str) -> bytes:
        """The complete content. Raises ObjectMissing."""

    def get_range(self, name: str, start: int, size: int) -> bytes:
        """At most `size` bytes from byte `start`; fewer at the end. Raises ObjectMissing."""

    def list(self, prefix: str) -> list[str]:
        """Sorted names that begin with `prefix`. A hint: deleted entries may remain, and new ones may be absent."""

    def delete(self, name: str) -> None:
        """Remove the object; a missing one is no error."""

    def create(self, name: str, content: bytes) -> bool:
        """Store the object unless the name is taken. Returns whether this call, or an earlier try of it, stored it."""

    def tidy(self, folder: str) -> None:
        """Remove unfinished writes below `folder`, which ends in a slash. No process may write there now."""

    def describe(self) -> str:
        """Where this storage is, for messages."""


# Room for what a generation writes before it trains: logs, events, a rank table.
_PROBE_NAME, _PROBE_BYTES = "probe/bytes", 1 << 16


def takes_writes(storage: Storage, folder: str) -> bool:
    """Whether storage is there and has room for a small object in this folder, which may be a disk of its own.

    folder: ends in a slash.
    """
    try:
        storage.put(f"{folder}{_PROBE_NAME}", bytes(_PROBE_BYTES))
        storage.delete(f"{folder}{_PROBE_NAME}")  # and the folder of its own, but not `folder`
    except StorageError:
        return False
    return True
