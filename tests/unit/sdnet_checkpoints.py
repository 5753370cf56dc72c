"""Small checkpoints with the files and the state of SDNet's."""

from pathlib import Path
from typing import Any

import numpy as np

from sdnet.parameters.checkpoint import CheckpointState, Snapshot


def save(
    checkpoints: Path,
    step: int,
    fpr95: float | None = None,
    data: dict[str, str] | None = None,
    recipe: dict[str, Any] | None = None,
) -> Path:
    """Write the checkpoint of this step; its weights are the step. Without a recipe it does not say which."""
    state = CheckpointState(
        epoch=0, step=step, samples=step, seed=0, slices=1, world_size=1, num_samples=9, recipe=recipe or {},
        losses=(0.0,), metrics={} if fpr95 is None else {"fpr95": fpr95}, data=data or {},
    )  # fmt: skip
    weights = {"embedding.1.weight": np.full((2, 3), step, np.float32)}
    directory = checkpoints / f"step_{step:08d}"
    Snapshot(weights, {"global_step": np.array([step], np.float32)}, state).write(directory)
    return directory
