"""Measures on many small patches of equal size: descriptors, distances, and one shift for all of them."""

from collections.abc import Iterable

import numpy as np

from sdnet.measures.channels import Measure
from sdnet.measures.correlation import correlate


def describe_patches(patches: np.ndarray, measure: Measure) -> np.ndarray:
    """Descriptors of unit length, float32 [N, C * H * W], of patches [N, H, W].

    The Euclidean distance of two descriptors falls as the correlation of their channels rises:
    distance^2 = 2 - 2 * correlation. A patch without structure gives a row of zeros.
    """
    rows = np.stack([measure(patch).ravel() for patch in patches])
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 1e-6, length, 1)


def patch_distances(pairs: np.ndarray, measure: Measure) -> np.ndarray:
    """Distance of the two halves of each pair, float64 [N], from 0 (equal structure) to 2.

    pairs: uint8 [N, H, 2 H] as stored, optical left, SAR right.
    """
    half = pairs.shape[2] // 2
    found = np.empty(len(pairs))
    for index, pair in enumerate(pairs):
        optical, sar = describe_patches(np.stack([pair[:, :half], pair[:, half:]]), measure)
        found[index] = np.linalg.norm(optical - sar)
    return found


def mean_surface(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], max_shift_px: int, measure: Measure
) -> np.ndarray:
    """Mean correlation of all pairs at each shift: float32 [2 m + 1, 2 m + 1] for m = max_shift_px.

    pairs: (optical, SAR), two images [H, W] of one size above 2 m. Entry (m + r, m + c) is the correlation when
    the SAR content is r rows below and c columns right of the optical content. The mean of many pairs has a
    clear peak where single pairs have none.
    Raises ValueError without a pair.
    """
    m = max_shift_px
    total, count = np.zeros((2 * m + 1, 2 * m + 1)), 0
    for optical, sar in pairs:
        rows, columns = optical.shape
        total += correlate(measure(optical)[:, m : rows - m, m : columns - m], measure(sar))
        count += 1
    if not count:
        raise ValueError("mean_surface needs at least one pair; give images of one scene")
    return (total / count).astype(np.float32)
