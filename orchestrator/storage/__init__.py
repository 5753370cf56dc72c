"""Where a run is kept: a small Protocol, and a directory behind it."""

from orchestrator.storage.directory import DirectoryStorage, storage_error, storage_errors
from orchestrator.storage.lease import Lease, RunIsOwned, RunLost
from orchestrator.storage.ownership import Ownership, owned
from orchestrator.storage.protocol import (
    ObjectMissing,
    Storage,
    StorageError,
    StorageMisused,
    StorageUnavailable,
    takes_writes,
)

__all__ = [
    "DirectoryStorage",
    "Lease",
    "ObjectMissing",
    "Ownership",
    "RunIsOwned",
    "RunLost",
    "Storage",
    "StorageError",
    "StorageMisused",
    "StorageUnavailable",
    "owned",
    "storage_error",
    "storage_errors",
    "takes_writes",
]
