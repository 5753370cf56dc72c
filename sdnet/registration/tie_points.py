"""Tie points: optical points and where each was found in the SAR image."""

from dataclasses import dataclass

import numpy as np

from sdnet.measures import correlate, find_peak
from sdnet.registration.chips import View, cut
from sdnet.registration.config import Level
from sdnet.registration.features import Features
from sdnet.registration.images import Image
from sdnet.registration.keypoints import choose_points
from sdnet.registration.transform import Transform

_LEAST_DATA = 0.6  # share of a chip that must hold data
_UPRIGHT = np.eye(2)


@dataclass(frozen=True, slots=True)
class TiePoints:
    """N tie points. optical, sar: float64 [N, 2], (row, column) in pixels of each image.

    score: float64 [N], correlation at the peak, from -1 to 1. second: the best elsewhere in the window.
    """

    optical: np.ndarray
    sar: np.ndarray
    score: np.ndarray
    second: np.ndarray

    def __len__(self) -> int:
        return len(self.optical)

    def take(self, which: np.ndarray) -> "TiePoints":
        """Those that an index or a mask chooses."""
        return TiePoints(self.optical[which], self.sar[which], self.score[which], self.second[which])

    def joined(self, other: "TiePoints") -> "TiePoints":
        """These and then the others."""
        columns = ("optical", "sar", "score", "second")
        return TiePoints(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in columns))


def search(
    optical: Image,
    sar: Image,
    transform: Transform,
    level: Level,
    features: Features,
    points: np.ndarray | None = None,
) -> TiePoints:
    """Seek each point's best place in the SAR image around where the transform predicts it.

    The SAR image is looked at through the transform, so rotation and scale are already gone. points:
    optical, float64 [N, 2]; by default chosen by blocks. Those whose surroundings are mostly empty,
    or whose peak lies on the rim of the window, give no tie point.
    """
    if points is None:
        points = choose_points(optical, sar, transform, level.points, _template_px(optical, level))
    scale, stride = 2**level.halvings, features.stride
    edge = _template_px(optical, level) // scale
    radius = level.radius_px // scale // stride * stride
    places = transform.apply(points)
    found = []
    for point, place in zip(points, places, strict=True):
        jacobian = transform.jacobian(point)
        view = View(place, jacobian, level.halvings)
        template = cut(optical, View(point, _UPRIGHT, level.halvings), edge, features, "optical")
        searched = cut(sar, view, edge + 2 * radius, features, "sar")
        if min(template.share, searched.share) < _LEAST_DATA:
            continue
        peak = find_peak(correlate(template.channels, searched.channels), max(6 // stride, 1))
        if peak.inside:
            offset = scale * (stride * np.array([peak.row, peak.column]) - radius)
            found.append([*point, *(place + jacobian @ offset), peak.score, peak.second])
    table = np.array(found, np.float64).reshape(-1, 6)
    return TiePoints(table[:, :2], table[:, 2:4], table[:, 4], table[:, 5])


def _template_px(optical: Image, level: Level) -> int:
    """The level's template, but at most three eighths of the image, in multiples of 16."""
    return min(level.template_px, int(0.375 * min(optical.shape)) // 16 * 16)
