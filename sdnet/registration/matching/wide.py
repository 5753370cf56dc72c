"""The wide search: any rotation and shifts to 200 px, from two small versions of the images."""

import numpy as np

from sdnet.measures import correlate, find_peak
from sdnet.registration.images import Image
from sdnet.registration.matching.chips import View, cut
from sdnet.registration.matching.features import Features
from sdnet.registration.transform import Transform, affine

SHIFT_PX = 200
_STEP_DEGREES = 5
_SEARCHED = 384  # edge of the SAR square in chip pixels, about
_MOST_PX = 2048  # of the optical image, around its middle


def wide_candidates(
    optical: Image, sar: Image, initial: Transform, features: Features, count: int
) -> list[Transform]:
    """The `count` best transforms, rotations about the middle of the optical image with a shift, best first.

    The middle of the optical image (at most 2,048 px) is shrunk to about 256 px and compared with the SAR image
    at every rotation in steps of 5 degrees. For small images the radius is half of their edge.
    """
    side = min(*optical.shape, _MOST_PX)
    reach = min(int(1.25 * SHIFT_PX), side // 2)
    halvings = max(0, round(np.log2((side + 2 * reach) / _SEARCHED)))
    scale = 2**halvings
    edge, radius = side // scale // 2 * 2, reach // scale
    middle = np.array([(length - 1) / 2 for length in optical.shape])
    place, jacobian = initial.apply(middle[None])[0], initial.jacobian(middle)
    template = cut(optical, View(middle, np.eye(2), halvings), edge, features, "optical").channels
    found = []
    for degrees in range(0, 360, _STEP_DEGREES):
        turned = jacobian @ _rotation(np.deg2rad(degrees))
        searched = cut(sar, View(place, turned, halvings), edge + 2 * radius, features, "sar")
        peak = find_peak(correlate(template, searched.channels), 2)
        offset = turned @ (scale * (np.array([peak.row, peak.column]) - radius))
        found.append((peak.score, degrees, _about(middle, turned, place + offset)))
    found.sort(key=lambda one: (-one[0], one[1]))
    return [transform for _, _, transform in found[:count]]


def _rotation(angle: float) -> np.ndarray:
    """Counter-clockwise as seen on the screen, acting on (row, column)."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _about(middle: np.ndarray, linear: np.ndarray, place: np.ndarray) -> Transform:
    """The affine transform that maps `middle` to `place`; all in (row, column)."""
    swapped = linear[::-1, ::-1]  # acts on (column, row)
    return affine(np.column_stack([swapped, (place - linear @ middle)[::-1]]))
