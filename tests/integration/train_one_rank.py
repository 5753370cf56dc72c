"""Trains one rank for a few steps and prints, as JSON, checksums of its result.

With CHECKPOINT, a group's rank 0 saves there after `SAVED` steps, and a rank alone resumes from there.

usage: train_one_rank.py RANK WORLD_SIZE TRAIN_NPZ OBJECTIVE [CHECKPOINT]; the group's MS_* variables are set already.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

import mindspore as ms
import numpy as np

from orchestrator.engine.rank.cpus import compute_on
from sdnet.config import Recipe
from sdnet.data.store import open_patches
from sdnet.parameters import weights
from sdnet.training.trainer import Trainer

SLICES, STEPS, SAVED = 2, 4, 2


def digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


RECIPES = {
    "published": Recipe(epochs=2, batch=8),
    "contrastive": Recipe(
        epochs=2,
        batch=8,
        objective="contrastive",
        normalisation="modality",
        flips=True,
        second_order_weight=0.5,
        average=0.15,
    ),
}


def train(
    rank: int, world_size: int, data: Path, objective: str, checkpoint: Path | None = None
) -> dict[str, str]:
    ms.set_context(mode=ms.GRAPH_MODE)
    if world_size > 1:
        ms.communication.init()
    compute_on(1)
    if rank == 1:
        weights.GAIN = 0.61  # as if this host's linear algebra rounded in another way, exaggerated
    patches = open_patches(data)
    trainer = Trainer(RECIPES[objective], patches, rank=rank, world_size=world_size, slices=SLICES)
    if checkpoint is not None and world_size == 1:
        trainer.restore(checkpoint)
    while trainer.progress.step < STEPS:
        trainer.step()
        if checkpoint is not None and (rank, world_size, trainer.progress.step) == (0, 2, SAVED):
            trainer.snapshot().write(checkpoint)
    losses = trainer.finish_epoch()
    snapshot = trainer.snapshot()
    distances = trainer.distances(patches, batch=6)
    trainer.close()
    return {
        "weights": digest(*snapshot.model.values()),
        "optimizer": digest(*snapshot.optimizer.values()),
        "distances": digest(distances),
        "losses": repr(losses),
    }


if __name__ == "__main__":
    saved_at = Path(sys.argv[5]) if len(sys.argv) > 5 else None
    found = train(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], saved_at)
    print(json.dumps(found), flush=True)
    # MindSpore leaves its group at exit, and may crash there when the other rank has already gone.
    os._exit(0)
