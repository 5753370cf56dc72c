"""Chooses the points to match: in each block of the optical image, the one with the most structure."""

import cv2
import numpy as np

from sdnet.registration.images import Image
from sdnet.registration.transform import Transform

_HALVINGS = 2


def choose_points(
    optical: Image, sar: Image, transform: Transform, count: int, template_px: int
) -> np.ndarray:
    """At most about `count` optical points, float64 [N, 2], row by row of a grid of blocks.

    Blocks are at least a third of a template wide: closer points would give the same match.

    A point is where the smaller eigenvalue of the structure tensor, summed over the template, is largest within
    its block: there is structure in two directions. Half a template around it is inside the optical image (or a
    quarter, when the image is small), and its predicted position is inside the SAR image.
    """
    strength = _strength(optical, template_px)
    rows, columns = optical.shape
    border = min(template_px // 2, min(rows, columns) // 4)
    inside = rows - 2 * border, columns - 2 * border
    blocks = _grid(*inside, min(count, inside[0] * inside[1] * 9 // template_px**2))
    scale = 2**_HALVINGS
    edges_r = np.linspace(border, rows - border, blocks[0] + 1).astype(int) // scale
    edges_c = np.linspace(border, columns - border, blocks[1] + 1).astype(int) // scale
    found = []
    for r0, r1 in zip(edges_r, edges_r[1:], strict=False):
        for c0, c1 in zip(edges_c, edges_c[1:], strict=False):
            block = strength[r0:r1, c0:c1]
            if block.size and block.max() > 0:
                r, c = np.unravel_index(int(block.argmax()), block.shape)
                found.append((scale * (r0 + r) + scale // 2, scale * (c0 + c) + scale // 2))
    points = np.array(found, np.float64).reshape(-1, 2)
    places = transform.apply(points)
    return points[((places >= 0) & (places < sar.shape)).all(axis=1)]


def _grid(rows: int, columns: int, count: int) -> tuple[int, int]:
    """Blocks down and across, about square, about `count` in all."""
    across = max(1, round(np.sqrt(count * columns / max(rows, 1))))
    return max(1, round(count / across)), across


def _strength(optical: Image, template_px: int) -> np.ndarray:
    small = optical.level(_HALVINGS)
    grey = cv2.GaussianBlur(small.grey.astype(np.float32), (0, 0), 1.0)
    across, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    # Divide by edge strength, because the channels are normalised by local contrast too.
    length = np.sqrt(across**2 + down**2)
    length += 0.5 * float(length.mean()) + 1e-6
    across, down = across / length, down / length
    sigma = template_px / 2**_HALVINGS / 4
    rr, cc, rc = (
        cv2.GaussianBlur(part, (0, 0), sigma) for part in (down * down, across * across, down * across)
    )
    smaller = (rr + cc) / 2 - np.sqrt(((rr - cc) / 2) ** 2 + rc**2)
    covered = cv2.blur(small.valid.astype(np.float32), (int(4 * sigma) | 1, int(4 * sigma) | 1))
    return np.where(covered > 0.95, smaller, 0)
