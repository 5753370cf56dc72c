"""Which samples each step sees: a pure function of (seed, epoch, step), the same for any number of ranks.

An epoch is one permutation of the samples. A global batch is a window of it, cut into
`slices` slices of `batch` samples; a rank computes whole slices. The last window of an epoch
wraps to the start of the same permutation, so that every batch is full and shapes never change.
"""

from functools import lru_cache

import numpy as np

from sdnet.errors import InputError


def steps_per_epoch(num_samples: int, global_batch: int) -> int:
    """Steps that show every sample at least once. Raises InputError when one batch is larger than the data."""
    if global_batch > num_samples:
        raise InputError(
            f"a step takes {global_batch} samples and the data holds {num_samples}; lower train.batch"
        )
    return -(-num_samples // global_batch)


@lru_cache(maxsize=2)
def epoch_order(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of an epoch: int64 [num_samples], read-only."""
    order = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(num_samples)
    order.flags.writeable = False
    return order


def slice_indices(
    num_samples: int, *, batch: int, slices: int, seed: int, epoch: int, step: int, slice_: int
) -> np.ndarray:
    """Samples of one slice: int64 [batch]. `step` counts inside the epoch, `slice_` from 0 to slices - 1."""
    first = (step * slices + slice_) * batch
    return epoch_order(num_samples, seed, epoch).take(np.arange(first, first + batch), mode="wrap")


def slices_of_rank(rank: int, world_size: int, slices: int) -> range:
    """The slices that a rank computes: contiguous, in rank order, sizes that differ by at most one."""
    return range(-(-rank * slices // world_size), -(-(rank + 1) * slices // world_size))
