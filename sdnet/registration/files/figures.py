"""Pictures of a result, small enough to look at: checkerboard, flicker, and the tie points."""

import tempfile
from pathlib import Path

import cv2
import numpy as np

from sdnet.registration.tie_points import TiePoints

_MOST_PX = 1024  # along an edge
_FIELDS = 8
_FLICKER_MS = 600


def preview(grey: np.ndarray) -> np.ndarray:
    """The image, uint8 [H, W], shrunk to at most 1,024 px along an edge."""
    scale = _MOST_PX / max(grey.shape)
    if scale >= 1:
        return grey
    return cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def checkerboard(optical: np.ndarray, warped: np.ndarray) -> np.ndarray:
    """Alternating fields of both images, uint8 [H, W]; roads must continue from field to field."""
    edge = max(16, max(optical.shape) // _FIELDS)
    rows, columns = np.indices(optical.shape, sparse=True)
    return np.where((rows // edge + columns // edge) % 2 == 0, optical, warped)


def flicker(optical: np.ndarray, warped: np.ndarray) -> bytes:
    """An animated PNG that shows the two images in turn."""
    animation = cv2.Animation()
    animation.frames = [cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) for image in (optical, warped)]
    animation.durations = [_FLICKER_MS, _FLICKER_MS]
    with tempfile.TemporaryDirectory(prefix="flicker-") as folder:
        path = Path(folder) / "flicker.png"  # OpenCV 4.11 writes animations to files only
        cv2.imwriteanimation(str(path), animation)
        return path.read_bytes()


def tie_point_map(
    optical: np.ndarray, shape: tuple[int, int], ties: TiePoints, inliers: np.ndarray
) -> np.ndarray:
    """The optical preview in colour, B, G, R, with a green ring at each tie point that agrees, else red.

    shape: of the whole image, in whose pixels the tie points are.
    """
    canvas = cv2.cvtColor(optical, cv2.COLOR_GRAY2BGR)
    scale = optical.shape[0] / shape[0]
    for point, agrees in zip(ties.optical, inliers, strict=True):
        colour = (0, 200, 0) if agrees else (0, 0, 230)
        row, column = (int(round(value * scale)) for value in point)
        cv2.circle(canvas, (column, row), 4, colour, 1, cv2.LINE_AA)
    return canvas
