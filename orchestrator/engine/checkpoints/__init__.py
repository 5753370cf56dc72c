"""The checkpoints of a run: written, read, chosen to resume from, and deleted."""

from orchestrator.engine.checkpoints.files import (
    FOLDER,
    MARKER,
    STATE,
    Encoded,
    checkpoint_names,
    found_objects,
    read_checkpoint,
    read_fields,
    step_of,
    write_checkpoint,
)
from orchestrator.engine.checkpoints.newest import (
    CheckpointsLost,
    newest_fields,
    newest_valid,
    refuse_lost,
)

__all__ = [
    "FOLDER",
    "MARKER",
    "STATE",
    "CheckpointsLost",
    "Encoded",
    "checkpoint_names",
    "found_objects",
    "newest_fields",
    "newest_valid",
    "read_checkpoint",
    "read_fields",
    "refuse_lost",
    "step_of",
    "write_checkpoint",
]
