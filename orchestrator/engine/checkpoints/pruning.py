"""Deletes old checkpoints of a run."""

import math

from orchestrator.engine.checkpoints.files import (
    FOLDER,
    MARKER,
    STATE,
    checkpoint_names,
    found_objects,
    has_state,
    order_of,
    read_fields,
)
from orchestrator.errors import CorruptData
from orchestrator.storage import ObjectMissing, Storage


def prune(storage: Storage, keep: int, best: str | None = None) -> None:
    """Delete all but the `keep` newest checkpoints and the one with the lowest metric `best`. Raises StorageError.

    `state.json` is deleted first: from then on the checkpoint does not count, so a half-deleted one is never read.
    Incomplete checkpoints that are older than all kept ones are deleted, too: their writer was killed.
    """
    names = checkpoint_names(storage)
    kept = set(names[-keep:])
    rated = [
        (rate, order_of(name), name) for name in names if (rate := _metric(storage, name, best)) is not None
    ]
    if rated:
        kept.add(min(rated)[-1])
    for name in names:
        if name not in kept:
            storage.delete(f"{FOLDER}{name}/{STATE}")
            _delete_files(storage, name)
    for oldest_kept in names[-keep:][:1]:
        for name in _unfinished(storage, oldest_kept):
            _delete_files(storage, name)


def _delete_files(storage: Storage, name: str) -> None:
    for path in storage.list(f"{FOLDER}{name}/"):
        storage.delete(path)


def _unfinished(storage: Storage, oldest_kept: str) -> list[str]:
    """Older names without a `state.json`. A listing may lag, so `has_state` looks up the object itself, too."""
    return [
        name
        for name, files in found_objects(storage).items()
        if order_of(name) < order_of(oldest_kept)
        and not files & {STATE, MARKER}
        and not has_state(storage, name)
    ]


def _metric(storage: Storage, name: str, metric: str | None) -> float | None:
    if metric is None:
        return None
    try:
        value = read_fields(storage, name).get("metrics", {}).get(metric)
    except (CorruptData, ObjectMissing):
        return None  # it cannot be the best; the next resume marks it as corrupt
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
