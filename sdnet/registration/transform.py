"""Transforms from points of the optical image to points of the SAR image."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike

from sdnet.errors import InputError, shown
from sdnet.registration.config import Model


@dataclass(frozen=True, slots=True)
class ShiftGrid:
    """Local shifts added after the matrix: float64 [R, C, 2], (row, column) in SAR pixels.

    Node (i, j) is at optical point (i * spacing_px, j * spacing_px); between nodes shifts are bilinear,
    beyond the outermost nodes they are those of the nearest.
    """

    spacing_px: float
    shifts: np.ndarray

    def at(self, points: np.ndarray) -> np.ndarray:
        """Shifts at optical points [N, 2]: float64 [N, 2]."""
        rows, columns = self.shifts.shape[:2]
        place = np.clip(points / self.spacing_px, 0, [rows - 1, columns - 1])
        low = np.minimum(place.astype(int), [max(rows - 2, 0), max(columns - 2, 0)])
        high = np.minimum(low + 1, [rows - 1, columns - 1])
        part = place - low
        (r0, c0), (r1, c1), (v, u) = low.T, high.T, part.T[:, :, None]
        top = self.shifts[r0, c0] * (1 - u) + self.shifts[r0, c1] * u
        bottom = self.shifts[r1, c0] * (1 - u) + self.shifts[r1, c1] * u
        return top * (1 - v) + bottom * v


@dataclass(frozen=True, slots=True)
class Transform:
    """Optical point to SAR point.

    matrix: float64 [3, 3]; acts on (column, row, 1), as OpenCV's do.
    grid: local shifts, for `piecewise` only.
    """

    model: Model
    matrix: np.ndarray
    grid: ShiftGrid | None = None

    def apply(self, points: ArrayLike) -> np.ndarray:
        """Map optical points float64 [N, 2], (row, column), to SAR points of the same shape."""
        points = np.asarray(points, np.float64).reshape(-1, 2)
        if not len(points):
            return points.copy()
        mapped = cv2.perspectiveTransform(points[None, :, ::-1], self.matrix)[0, :, ::-1]
        return mapped if self.grid is None else mapped + self.grid.at(points)

    def jacobian(self, point: np.ndarray) -> np.ndarray:
        """Derivative at one optical point: float64 [2, 2], SAR (row, column) by optical (row, column)."""
        steps = point + np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
        down, up, right, left = self.apply(steps)
        return np.stack([(down - up) / 2, (right - left) / 2], axis=1)

    def as_dict(self) -> dict[str, object]:
        """The transform as JSON values."""
        found: dict[str, object] = {"model": self.model, "matrix": self.matrix.tolist()}
        if self.grid is not None:
            found |= {"grid_spacing_px": self.grid.spacing_px, "grid_shifts": self.grid.shifts.tolist()}
        return found


def transform_from_dict(content: dict[str, Any]) -> Transform:
    """The transform that `Transform.as_dict` wrote. Raises KeyError or ValueError for anything else."""
    matrix = np.array(content["matrix"], np.float64).reshape(3, 3)
    grid = None
    if "grid_shifts" in content:
        shifts = np.array(content["grid_shifts"], np.float64)
        grid = ShiftGrid(float(content["grid_spacing_px"]), shifts)
    return Transform(content["model"], matrix, grid)


def affine(rows: np.ndarray | list[list[float]], model: Model = "affine") -> Transform:
    """A transform from the upper two rows of its matrix, [2, 3]. Raises InputError for another shape."""
    try:
        upper = np.asarray(rows, np.float64)
    except (TypeError, ValueError):
        upper = np.empty(0)
    if upper.shape != (2, 3):
        raise InputError(f"the matrix is {shown(rows)}; give its upper two rows, numbers [2, 3]")
    return Transform(model, np.vstack([upper, [0.0, 0.0, 1.0]]))


IDENTITY = affine([[1, 0, 0], [0, 1, 0]])
