"""Tie points: optical points and where each was found in the SAR image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sdnet.errors import InputError, shown

_FARTHEST_PX = 1e9  # far outside any image, but still a 32 bit integer


@dataclass(frozen=True, slots=True)
class TiePoints:
    """N tie points. optical, sar: float64 [N, 2], (row, column) in pixels of each image.

    score: float64 [N], correlation at the peak, from -1 to 1.
    second: the best score elsewhere in the window.
    """

    optical: np.ndarray
    sar: np.ndarray
    score: np.ndarray
    second: np.ndarray

    def __len__(self) -> int:
        return len(self.optical)

    def take(self, which: np.ndarray) -> "TiePoints":
        """The tie points that an index or a mask selects."""
        return TiePoints(self.optical[which], self.sar[which], self.score[which], self.second[which])

    def joined(self, other: "TiePoints") -> "TiePoints":
        """These tie points, followed by the others."""
        columns = ("optical", "sar", "score", "second")
        return TiePoints(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in columns))


def points_from(points: ArrayLike) -> np.ndarray:
    """Points that a user gave, as float64 [N, 2], (row, column). Raises InputError for anything else."""
    if np.ma.is_masked(points):
        raise InputError("points has masked values; leave those points out")
    try:
        found = np.asarray(points, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"points is {shown(points)}; give numbers [N, 2], (row, column)") from None
    if found.size == 0:
        return np.empty((0, 2))
    if found.ndim != 2 or found.shape[1] != 2:
        raise InputError(f"points has shape {found.shape}; give [N, 2], (row, column)")
    for row, column in found[~(np.abs(found) <= _FARTHEST_PX).all(axis=1)]:  # NaN is not below any limit
        raise InputError(f"points has ({row}, {column}), which is not in an image; leave it out")
    return found
