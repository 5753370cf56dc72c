"""Correlation surfaces: how well the surroundings of each optical point fit at every position of a window.

Shape letters: N points, S entries along an edge of a surface.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from sdnet.measures import find_peak
from sdnet.registration.tie_points import TiePoints


@dataclass(frozen=True, slots=True)
class Surfaces:
    """N surfaces.

    optical: float64 [N, 2], the points. places: float64 [N, 2], the SAR points of the middle entries.
    frames: float64 [N, 2, 2], SAR (row, column) by surface (row, column). scores: float32 [N, S, S],
    correlation from -1 to 1; S is odd.
    """

    optical: np.ndarray
    places: np.ndarray
    frames: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.optical)

    @property
    def radius(self) -> int:
        """Entries from the middle of a surface to its border."""
        return self.scores.shape[-1] // 2

    def take(self, which: np.ndarray) -> "Surfaces":
        """The surfaces that an index or a mask selects."""
        return Surfaces(self.optical[which], self.places[which], self.frames[which], self.scores[which])

    def blurred(self, sigma: float) -> "Surfaces":
        """The same with a Gaussian of sigma entries over each surface."""
        border = cv2.BORDER_REPLICATE
        scores = [cv2.GaussianBlur(one, (0, 0), sigma, borderType=border) for one in self.scores]
        return replace(self, scores=np.stack(scores))

    def peaks(self, exclude: int) -> tuple[TiePoints, np.ndarray]:
        """The peak of each surface as a tie point, and bool [N]: False where it is on the border.

        exclude: see `find_peak`. Points with a peak on the border give no tie point.
        """
        found = [find_peak(one, exclude) for one in self.scores]
        inside = np.array([peak.inside for peak in found], bool)
        offsets = np.array([[peak.row, peak.column] for peak in found]).reshape(-1, 2) - self.radius
        sar = self.places + np.einsum("nij,nj->ni", self.frames, offsets)
        score, second = (np.array([getattr(peak, name) for peak in found]) for name in ("score", "second"))
        return TiePoints(self.optical, sar, score, second).take(inside), inside

    def at(self, sar: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Each surface at one SAR point, [N, 2]: value [N], slope [N, 2] and curvature [N, 2, 2].

        Slope and curvature are by SAR (row, column). Between entries the surface is a cubic B-spline, which
        favours no part of a pixel. Points outside are moved onto the border.
        """
        inverse, radius = np.linalg.inv(self.frames), self.radius
        offset = np.einsum("nij,nj->ni", inverse, sar - self.places)
        place = np.clip(offset, 1 - radius, radius - 1 - 1e-6) + radius
        first = np.floor(place).astype(int)
        down, across = (_spline(part) for part in (place - first).T)
        rows, columns = (index[:, None] + np.arange(-1, 3) for index in first.T)
        near = self.scores[np.arange(len(self))[:, None, None], rows[:, :, None], columns[:, None, :]]
        both = [[np.einsum("nij,ni,nj->n", near, d, a) for a in across] for d in down]
        slope = np.stack([both[1][0], both[0][1]], axis=1)
        curvature = np.stack([both[2][0], both[1][1], both[1][1], both[0][2]], axis=1).reshape(-1, 2, 2)
        slope = np.einsum("nji,nj->ni", inverse, slope)
        return both[0][0], slope, np.einsum("nji,njk,nkl->nil", inverse, curvature, inverse)


def _spline(t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights [N, 4] of a cubic B-spline at t from 0 to 1, and of its first two derivatives."""
    t = t[:, None]
    value = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    slope = [-((1 - t) ** 2), 3 * t**2 - 4 * t, -3 * t**2 + 2 * t + 1, t**2]
    curvature = [1 - t, 3 * t - 2, 1 - 3 * t, t]
    return (
        np.concatenate(value, axis=1) / 6,
        np.concatenate(slope, axis=1) / 2,
        np.concatenate(curvature, axis=1),
    )
