"""Compares the surroundings of optical points with a window of the SAR image."""

import numpy as np

from sdnet.measures import correlate
from sdnet.registration.config import Level
from sdnet.registration.images import Image
from sdnet.registration.matching.chips import View, cut
from sdnet.registration.matching.features import Features
from sdnet.registration.matching.keypoints import choose_points
from sdnet.registration.matching.surfaces import Surfaces
from sdnet.registration.tie_points import TiePoints
from sdnet.registration.transform import Transform

_LEAST_DATA = 0.6  # share of a chip that must hold data
_UPRIGHT = np.eye(2)
_APART_PX = 6  # a closer second peak belongs to the first


def search(
    optical: Image,
    sar: Image,
    transform: Transform,
    level: Level,
    features: Features,
    points: np.ndarray | None = None,
) -> TiePoints:
    """Find the best position of each point: the peaks of `compare`, without those on the border."""
    surfaces = compare(optical, sar, transform, level, features, points)
    return surfaces.peaks(apart(features))[0]


def apart(features: Features) -> int:
    """The least distance between two peaks of a surface, in entries."""
    return max(_APART_PX // features.stride, 1)


def compare(
    optical: Image,
    sar: Image,
    transform: Transform,
    level: Level,
    features: Features,
    points: np.ndarray | None = None,
) -> Surfaces:
    """Correlate each point's surroundings with a SAR window around its predicted position.

    The window is resampled through the transform, which removes rotation and scale.
    points: optical, float64 [N, 2]; None chooses one in each block. Points with mostly empty surroundings give
    no surface.
    """
    if points is None:
        points = choose_points(optical, sar, transform, level.points, _template_px(optical, level))
    scale, stride = 2**level.halvings, features.stride
    edge = _template_px(optical, level) // scale
    radius = level.radius_px // scale // stride * stride
    kept, frames, scores = [], [], []
    places = transform.apply(points)
    for index, (point, place) in enumerate(zip(points, places, strict=True)):
        jacobian = transform.jacobian(point)
        view = View(place, jacobian, level.halvings)
        template = cut(optical, View(point, _UPRIGHT, level.halvings), edge, features, "optical")
        searched = cut(sar, view, edge + 2 * radius, features, "sar")
        if min(template.share, searched.share) >= _LEAST_DATA:
            kept.append(index)
            frames.append(jacobian * scale * stride)
            scores.append(correlate(template.channels, searched.channels))
    which, side = np.array(kept, int), 2 * (radius // stride) + 1
    return Surfaces(
        points[which],
        places[which],
        np.array(frames).reshape(-1, 2, 2),
        np.array(scores, np.float32).reshape(-1, side, side),
    )


def _template_px(optical: Image, level: Level) -> int:
    """The level's template, but at most three eighths of the image, in multiples of 16."""
    return min(level.template_px, int(0.375 * min(optical.shape)) // 16 * 16)
