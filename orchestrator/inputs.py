"""What can be known to be wrong before anything starts: images, split, prepared files, batch."""

from pathlib import Path

import numpy as np

from orchestrator.spec import DataSpec, JobSpec
from sdnet.data.sen12 import find_pairs, split_scenes
from sdnet.data.store import open_patches
from sdnet.errors import InputError


def check_inputs(spec: JobSpec) -> None:
    """Raise InputError for data that cannot be trained on; folders are listed, no image is read."""
    if spec.data.prepared is not None:
        most, where = _prepared(Path(spec.data.prepared).expanduser()), spec.data.prepared
    elif spec.data.images is not None:
        most, where = _most_from_images(Path(spec.data.images).expanduser(), spec.data), spec.data.images
    else:
        most, where = spec.data.synthetic.pairs * spec.data.patches.per_pair, "data.synthetic"
    if most < spec.global_batch:
        ranks = spec.cluster.max_workers
        raise InputError(
            f"train.batch is {spec.train.batch} on {ranks} rank(s), {spec.global_batch} samples a step, but "
            f"{where} gives at most {most}; lower train.batch, or raise data.patches.per_pair"
        )


def _prepared(folder: Path) -> int:
    """Training patches of a folder with train.npz and test.npz."""
    test = open_patches(folder / "test.npz")
    if len(np.unique(test.labels)) < 2:
        raise InputError(
            f"{test.path} holds labels {test.labels[0]} only; FPR95 needs matches and non-matches"
        )
    return len(open_patches(folder / "train.npz"))


def _most_from_images(images: Path, data: DataSpec) -> int:
    """The most training patches that a tree can give."""
    pairs = find_pairs(images).pairs
    train, test = split_scenes((pair.scene for pair in pairs), data.split)
    if len(test) < 2:
        raise InputError(
            f"the only test scene of {images} is {test[0]}; non-matches come from another scene: give 2"
        )
    return sum(pair.scene in set(train) for pair in pairs) * data.patches.per_pair
