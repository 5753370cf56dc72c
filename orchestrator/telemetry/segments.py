"""The objects that store a run's events, and how to find those that no listing shows yet."""

import re
from collections.abc import Iterable

from orchestrator.storage import ObjectMissing, Storage

FOLDER, MERGED = "events/", "events.jsonl"
_SEGMENT = re.compile(r"(.+/)(\d{6,})\.jsonl")
_LEASE = re.compile(FOLDER + r"(\d{6,})/.+/")


def has_events(storage: Storage) -> bool:
    """Whether a launch has recorded anything here. Raises StorageError."""
    if storage.list(FOLDER):
        return True
    try:
        storage.get_range(MERGED, 0, 1)
    except ObjectMissing:
        return False
    return True


def lease_of(name: str) -> int:
    """The number of the lease under which a segment was written; 0 for `events.jsonl` and for older versions."""
    match = _LEASE.match(name)
    return int(match[1]) if match else 0


def unlisted_segments(storage: Storage, known: Iterable[str]) -> dict[str, bytes]:
    """The segments that follow the known ones, by name. Raises StorageError.

    A mount may list a new name up to a minute late. A writer numbers its segments without gaps, so the next one can be
    opened by its name.
    """
    newest: dict[str, int] = {}
    for name in known:
        if match := _SEGMENT.fullmatch(name):
            newest[match[1]] = max(newest.get(match[1], 0), int(match[2]))
    found = {}
    for writer, number in newest.items():
        while True:
            number += 1
            name = f"{writer}{number:06d}.jsonl"
            try:
                found[name] = storage.get(name)
            except ObjectMissing:
                break
    return found
