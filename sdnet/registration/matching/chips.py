"""Chips: small squares cut from both images, so that equal pixels show equal places."""

from dataclasses import dataclass

import cv2
import numpy as np

from sdnet.registration.config import Sensor
from sdnet.registration.images import Image
from sdnet.registration.matching.features import Features


@dataclass(frozen=True, slots=True)
class Chip:
    """Channels float32 [C, h, w], and the share of the chip's pixels that hold data."""

    channels: np.ndarray
    share: float


@dataclass(frozen=True, slots=True)
class View:
    """The position, orientation and scale of a chip in an image.

    centre: (row, column) of the image; the chip's pixel (edge // 2, edge // 2) shows it. jacobian: [2, 2],
    image (row, column) by optical (row, column). halvings: a chip pixel is 2^halvings optical pixels.
    """

    centre: np.ndarray
    jacobian: np.ndarray
    halvings: int


def cut(image: Image, view: View, edge_px: int, features: Features, sensor: Sensor) -> Chip:
    """Channels of the view's square, whose edge is edge_px chip pixels."""
    edge, scale = edge_px + 2 * features.margin, 2.0**view.halvings
    # The level whose pixels are about as large as a chip's: a finer image is averaged, not subsampled.
    level = max(0, round(np.log2(scale * np.sqrt(abs(np.linalg.det(view.jacobian))))))
    level = min(level, int(np.log2(min(image.shape))))  # one pixel cannot be halved
    image, shrink = image.level(level), 2.0**level
    jacobian = view.jacobian * scale / shrink
    # Pixel i of a level has its centre at shrink * i + (shrink - 1) / 2 of the whole image.
    middle = (view.centre - (shrink - 1) / 2) / shrink
    offset = middle - jacobian @ np.full(2, float(edge // 2))
    matrix = np.array(
        [[jacobian[1, 1], jacobian[1, 0], offset[1]], [jacobian[0, 1], jacobian[0, 0], offset[0]]]
    )
    grey, valid = _resampled(image, matrix, edge)
    if not valid.all():
        grey = np.where(valid, grey, grey[valid].mean() if valid.any() else 0).astype(np.float32)
    inside = slice(features.margin, edge - features.margin)
    return Chip(features.channels(grey, valid, sensor), float(valid[inside, inside].mean()))


def _resampled(image: Image, matrix: np.ndarray, edge: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey float32 and mask bool, [edge, edge]; matrix: chip (column, row) to image (column, row).

    OpenCV gets only the needed part of the image, because its coordinates end at 32,767.
    """
    corners = matrix @ np.array([[0, edge - 1, 0, edge - 1], [0, 0, edge - 1, edge - 1], [1, 1, 1, 1]])
    (left, top), (right, bottom) = np.floor(corners.min(axis=1)) - 3, np.ceil(corners.max(axis=1)) + 4
    rows, columns = image.shape
    top, left = int(np.clip(top, 0, rows - 1)), int(np.clip(left, 0, columns - 1))
    bottom, right = int(np.clip(bottom, top + 1, rows)), int(np.clip(right, left + 1, columns))
    local = matrix - np.array([[0, 0, left], [0, 0, top]])
    size, inverse = (edge, edge), cv2.WARP_INVERSE_MAP
    part = image.grey[top:bottom, left:right].astype(np.float32)
    grey = cv2.warpAffine(part, local, size, flags=inverse | cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    mask = image.valid[top:bottom, left:right].view(np.uint8)
    valid = cv2.warpAffine(mask, local, size, flags=inverse | cv2.INTER_NEAREST)
    return grey, valid.astype(bool)
