"""Local shifts on top of an affine transform: for relief, which no single matrix describes.

A SAR image shows a slope that faces the sensor closer to it: tens of metres of height move a point by pixels,
only along the line of sight. The shift varies smoothly, so it is estimated as a field.
"""

import cv2
import numpy as np

from sdnet.measures import vertex
from sdnet.registration.matching.surfaces import Surfaces
from sdnet.registration.transform import ShiftGrid, Transform

_NODES = 16  # along the longer edge, at most
_LEAST_SPACING_PX = 64.0
# From coarse to fine: radius of influence of a surface in node spacings, and largest move of a node in entries. A
# round uses surfaces that earlier rounds have moved, so slopes do not blur the sums.
_ROUNDS = ((4.0, 24), (2.0, 12), (2.0, 12), (1.0, 8), (1.0, 6), (1.0, 4), (1.0, 4), (1.0, 4), (1.0, 4))
_BLUR = 1.0  # sigma, in entries of the surfaces
_WHOLE = 75  # peaks above this percentile of heights have full weight
_PRIOR = 1.0  # weight of the previous round, in clear nodes


def with_local_shifts(surfaces: Surfaces, transform: Transform, shape: tuple[int, int]) -> Transform:
    """Add a smooth grid of shifts, which maximises the summed surfaces around each node.

    As in the joint fit, no surface decides by itself. Where no sum has a clear peak, the shift comes from the
    wider surroundings, or is 0.
    shape: of the optical image.
    """
    spacing = max(_LEAST_SPACING_PX, max(shape) / _NODES)
    counts = [int(np.ceil((length - 1) / spacing)) + 1 for length in shape]
    nodes = np.stack(np.meshgrid(*(np.arange(count) * spacing for count in counts), indexing="ij"), axis=-1)
    nodes = nodes.reshape(-1, 2)
    field = ShiftGrid(spacing, np.zeros((*counts, 2)))
    smooth = surfaces.blurred(_BLUR).scores
    for width, reach in _ROUNDS:
        near = _near(nodes, surfaces.optical, width * spacing)
        moved = _moved(smooth, field.at(surfaces.optical))
        sums = np.tensordot(near / near.sum(axis=1, keepdims=True), moved, axes=1)
        found, clear = _peaks(sums, min(reach, surfaces.radius))
        weight = _near(nodes, nodes, width * spacing / 2) * clear
        more = weight @ found / (weight.sum(axis=1, keepdims=True) + _PRIOR)
        field = ShiftGrid(spacing, field.shifts + more.reshape(*counts, 2))
    near = _near(nodes, surfaces.optical, spacing)
    frames = np.tensordot(near / near.sum(axis=1, keepdims=True), surfaces.frames, axes=1)
    local = np.einsum("nij,nj->ni", frames, field.shifts.reshape(-1, 2)).reshape(*counts, 2)
    if transform.grid is not None:
        local = local + transform.grid.shifts
    return Transform("piecewise", transform.matrix, ShiftGrid(spacing, local))


def _near(places: np.ndarray, others: np.ndarray, sigma_px: float) -> np.ndarray:
    """A Gaussian of the distance of each place from each other one: float64 [N, M], never 0."""
    apart = np.square(places[:, None] - others).sum(axis=2)
    return np.exp(-0.5 * apart / sigma_px**2) + 1e-12


def _moved(scores: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Move each surface of [N, S, S] so that the entry at its shift, [N, 2], is in the middle."""
    size, flags = scores.shape[:0:-1], cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.stack(
        [
            cv2.warpAffine(
                one, np.array([[1, 0, column], [0, 1, row]]), size, None, flags, cv2.BORDER_REPLICATE
            )
            for one, (row, column) in zip(scores, shifts, strict=True)
        ]
    )


def _peaks(sums: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """The highest entry within reach of the middle, [N, 2], and its weight, [N] from 0 to 1.

    sums: [N, S, S]. A peak on the border of its surface or of its reach has weight 0.
    """
    radius = sums.shape[1] // 2
    inner = sums[:, radius - reach : radius + reach + 1, radius - reach : radius + reach + 1]
    place = np.stack(np.unravel_index(inner.reshape(len(sums), -1).argmax(axis=1), inner.shape[1:]), axis=1)
    rim = (np.abs(place - reach) == reach).any(axis=1)
    row, column = np.clip(place, 1, 2 * reach - 1).T
    node = np.arange(len(sums))
    down = np.stack([inner[node, row + step, column] for step in (-1, 0, 1)])
    across = np.stack([inner[node, row, column + step] for step in (-1, 0, 1)])
    shift = np.stack([row + vertex(down), column + vertex(across)], axis=1) - reach
    height = down[1] - sums.mean(axis=(1, 2))
    share = np.clip(height / max(float(np.percentile(height, _WHOLE)), 1e-9), 0, 1)
    return shift, np.where(rim, 0.0, share**2)
