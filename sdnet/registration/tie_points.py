"""Tie points: optical points and where each was found in the SAR image."""

from dataclasses import dataclass

import numpy as np


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
