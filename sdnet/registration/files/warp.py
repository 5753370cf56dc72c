"""Resamples the SAR image onto the pixels of the optical one."""

import cv2
import numpy as np

from sdnet.registration.transform import Transform

_ROWS = 256  # resampled at once, to limit the memory for coordinates
_MARGIN = 3
_REACH_PX = 2  # from a place's nearest pixel to the farthest one that bicubic interpolation uses


def warp(
    pixels: np.ndarray,
    transform: Transform,
    shape: tuple[int, int],
    empty: float = 0,
    valid: np.ndarray | None = None,
) -> np.ndarray:
    """SAR pixels [H, W] or [H, W, C] on the optical grid: [shape[0], shape[1]] (, C), same type.

    Bicubic. transform: optical point to SAR point. empty: for places outside the SAR image.
    valid: bool [H, W]; pixels near an invalid one become empty too, because interpolation would mix both.
    """
    inner = None
    if valid is not None:
        edge = 2 * _REACH_PX + 1
        inner = cv2.erode(valid.view(np.uint8), np.ones((edge, edge), np.uint8))
    warped = np.full((*shape, *pixels.shape[2:]), empty, pixels.dtype)
    columns = np.arange(shape[1], dtype=np.float64)
    for first in range(0, shape[0], _ROWS):
        rows = np.arange(first, min(first + _ROWS, shape[0]), dtype=np.float64)
        grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
        places = transform.apply(grid).reshape(len(rows), len(columns), 2)
        warped[first : first + len(rows)] = _block(pixels, places, empty, inner)
    return warped


def _block(pixels: np.ndarray, places: np.ndarray, empty: float, inner: np.ndarray | None) -> np.ndarray:
    """Pixels at (row, column) places [h, w, 2]; only the needed part goes to OpenCV (32,767 px at most)."""
    low = np.floor(places.min(axis=(0, 1))).astype(int) - _MARGIN
    high = np.ceil(places.max(axis=(0, 1))).astype(int) + _MARGIN + 1
    top, left = np.clip(low, 0, np.array(pixels.shape[:2]) - 1)
    bottom, right = np.clip(high, [top + 1, left + 1], pixels.shape[:2])
    local = (places - [top, left]).astype(np.float32)
    part = np.ascontiguousarray(pixels[top:bottom, left:right])
    found = cv2.remap(
        part, local[:, :, 1], local[:, :, 0], cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    outside = ((places < -0.5) | (places > np.array(pixels.shape[:2]) - 0.5)).any(axis=2)
    if inner is not None:
        part = np.ascontiguousarray(inner[top:bottom, left:right])
        outside |= cv2.remap(part, local[:, :, 1], local[:, :, 0], cv2.INTER_NEAREST) == 0
    found[outside] = empty
    return found
