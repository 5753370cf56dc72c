"""Synthetic pairs for registration: both images have the same structure but not the same brightness."""

import cv2
import numpy as np


def ground(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Fields of random grey with sharp borders, float32 [rows, columns] in 0..255."""
    rng = np.random.default_rng(seed)
    image = np.full((rows, columns), 128, np.float32)
    for _ in range(rows * columns // 700):
        middle = rng.uniform(0, [columns, rows])
        size, angle = rng.uniform(8, 50, 2), rng.uniform(0, 180)
        box = cv2.boxPoints((tuple(middle), tuple(size), angle)).astype(np.int32)
        cv2.fillConvexPoly(image, box, float(rng.uniform(20, 235)))
    return cv2.GaussianBlur(image, (0, 0), 1.0)


def pair(
    edge: int, matrix: np.ndarray, seed: int = 0, sar_edge: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """An optical and a SAR image, uint8: inverted, speckled, and moved by a matrix [3, 3] on (column, row).

    The ground is larger than both images, so neither has empty pixels.
    """
    margin = edge // 2
    scene = ground(edge + 2 * margin, edge + 2 * margin, seed)
    shift = np.array([[1, 0, margin], [0, 1, margin], [0, 0, 1.0]])
    size = (sar_edge or edge, sar_edge or edge)
    to_scene = shift @ np.linalg.inv(matrix)
    radar = cv2.warpPerspective(255 - scene, to_scene, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    speckle = np.random.default_rng(seed + 1).gamma(30, 1 / 30, radar.shape)
    optical = scene[margin : margin + edge, margin : margin + edge]
    return _uint8(optical), _uint8(np.maximum(radar * speckle, 1))


def turned(degrees: float, scale: float, shift: tuple[float, float], edge: int) -> np.ndarray:
    """Rotation and scale about the middle of an image, then a shift (column, row): float64 [3, 3]."""
    angle, middle = np.deg2rad(degrees), np.full(2, (edge - 1) / 2)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.vstack([np.column_stack([linear, middle - linear @ middle + shift]), [0, 0, 1]])


def _uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
