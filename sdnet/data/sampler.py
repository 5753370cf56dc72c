"""Which samples each step sees: a pure function of (seed, epoch, step), the same for any number of ranks.

An epoch is one permutation of the samples, in which samples of a scene may follow each other. A global
batch is a window of it, cut into `slices` slices of `batch` samples; a rank computes whole slices. The
last window of an epoch wraps to the start of the same permutation, so that every batch is full and
shapes never change.
"""

from functools import lru_cache

import numpy as np

from sdnet.errors import InputError


def steps_per_epoch(num_samples: int, global_batch: int) -> int:
    """Steps that show every sample at least once. Raises InputError when one batch is larger than the data."""
    if global_batch > num_samples:
        raise InputError(
            f"a step takes {global_batch} samples and the data holds {num_samples}; lower the batch"
        )
    return -(-num_samples // global_batch)


@lru_cache(maxsize=2)
def epoch_order(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of an epoch: int64 [num_samples], read-only."""
    order = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(num_samples)
    order.flags.writeable = False
    return order


def in_scene_runs(ground: np.ndarray, run: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of an epoch with `run` samples of one scene after each other: int64 [num_samples].

    ground: integers [num_samples, 2], scene and pair of images. The last run of a scene may be shorter. Samples of
    a run come from different pairs of images, as long as the scene has so many.
    """
    order = epoch_order(len(ground), seed, epoch)
    scene, tile = ground[order].T
    # First one sample of each tile, then the second ones, and so on.
    by_tile = np.argsort(tile, kind="stable")
    turn = np.empty(len(order), np.int64)
    turn[by_tile] = _place_in_group(tile[by_tile])
    order = order[np.lexsort((turn, scene))]
    begins = _place_in_group(ground[order, 0]) % run == 0
    lot = np.random.Generator(np.random.PCG64([seed, epoch, 1])).permutation(np.count_nonzero(begins))
    return order[np.argsort(lot[np.cumsum(begins) - 1], kind="stable")]


def _place_in_group(sorted_keys: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... within each run of equal keys."""
    places = np.arange(len(sorted_keys))
    starts = np.flatnonzero(np.diff(sorted_keys, prepend=sorted_keys[:1] - 1))
    return places - np.repeat(starts, np.diff(starts, append=len(sorted_keys)))


def slice_indices(order: np.ndarray, *, batch: int, slices: int, step: int, slice_: int) -> np.ndarray:
    """Samples of one slice: int64 [batch]. `step` counts inside the epoch, `slice_` from 0 to slices - 1."""
    first = (step * slices + slice_) * batch
    return order.take(np.arange(first, first + batch), mode="wrap")


def slices_of_rank(rank: int, world_size: int, slices: int) -> range:
    """The slices that a rank computes: contiguous, in rank order, sizes that differ by at most one."""
    return range(-(-rank * slices // world_size), -(-(rank + 1) * slices // world_size))
