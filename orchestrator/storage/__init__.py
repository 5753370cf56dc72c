"""Where a run is kept: a small Protocol, and a directory behind it."""

from orchestrator.storage.directory import DirectoryStorage
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
    "takes_writes",
]
