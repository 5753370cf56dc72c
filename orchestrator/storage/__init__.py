"""Where a run is kept: a small Protocol, and a directory behind it."""

from orchestrator.storage.directory import DirectoryStorage, storage_errors
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
    "ObjectMissing",
    "Storage",
    "StorageError",
    "StorageMisused",
    "StorageUnavailable",
    "storage_errors",
    "takes_writes",
]
