"""Fits the transform that maximises the sum of all correlation surfaces.

The peak of a single surface is often wrong: half of the templates of a real pair are more than a pixel off. The
sum of all surfaces along a transform has one clear peak. So the fit maximises this sum, and no template has to
choose a position by itself.
"""

import numpy as np

from sdnet.registration.config import Model
from sdnet.registration.matching.surfaces import Surfaces
from sdnet.registration.transform import Transform

# The sum is blurred at first, so that its peak is wide, then less and less; sigma in surface entries.
_WIDEST, _NARROWEST = 3.0, 0.7
_ROUNDS, _HALVINGS, _REST_PX = 30, 6, 1e-4
_LEAST_SURFACES = 8
# Which entries of the matrix a model may change, (row, column).
_FREE = {
    "translation": [(0, 2), (1, 2)],
    "affine": [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)],
    "homography": [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1)],
}


def fit_jointly(surfaces: Surfaces, start: Transform, model: Model) -> Transform | None:
    """Climb from `start` to the nearest peak of the summed surfaces; None for fewer than 8 surfaces.

    `piecewise` is fitted as affine. A surface is flat far from its peak, so a surface with a wrong peak has
    little influence, like an outlier in a robust fit.
    """
    if len(surfaces) < _LEAST_SURFACES:
        return None
    kind: Model = "affine" if model == "piecewise" else model
    matrix = start.matrix
    if kind == "translation":
        shift = (start.apply(surfaces.optical) - surfaces.optical).mean(axis=0)
        matrix = np.array([[1, 0, shift[1]], [0, 1, shift[0]], [0, 0, 1.0]])
    transform = Transform(kind, matrix)
    sigma = min(surfaces.radius / 4, _WIDEST)
    while sigma >= _NARROWEST:
        transform = _climb(surfaces.blurred(sigma), transform)
        sigma /= 2
    return _climb(surfaces, transform)


def _climb(surfaces: Surfaces, transform: Transform) -> Transform:
    """Newton's method; a step that lowers the sum is halved."""
    parameters = _Parameters(surfaces.optical, transform.model)
    value, step = _step(surfaces, transform, parameters)
    for _ in range(_ROUNDS):
        for _ in range(_HALVINGS):
            moved = parameters.moved(transform, step)
            higher, following = _step(surfaces, moved, parameters)
            if higher >= value:
                break
            step = step / 2
        else:
            return transform
        distance = np.abs(moved.apply(surfaces.optical) - transform.apply(surfaces.optical)).max()
        transform, value, step = moved, higher, following
        if distance < _REST_PX:
            break
    return transform


def _step(surfaces: Surfaces, transform: Transform, parameters: "_Parameters") -> tuple[float, np.ndarray]:
    """The sum at a transform, and Newton's step towards its peak, one number for each free entry."""
    value, slope, curvature = surfaces.at(transform.apply(surfaces.optical))
    # Use the absolute curvature: then every step leads uphill, even where a surface is not concave.
    along, axes = np.linalg.eigh(curvature)
    steep = np.einsum("nij,nj,nkj->nik", axes, np.maximum(np.abs(along), 1e-6), axes)
    design = parameters.design(transform)
    normal = np.einsum("nip,nij,njq->pq", design, steep, design)
    damping = 1e-6 * np.trace(normal) / len(normal) * np.eye(len(normal))
    return float(value.sum()), np.linalg.solve(normal + damping, np.einsum("nip,ni->p", design, slope))


class _Parameters:
    """The free entries of a model's matrix on centred and scaled points, so that all have a similar effect."""

    def __init__(self, optical: np.ndarray, model: Model):
        self.optical, self.free = optical, _FREE[model]
        centre = optical.mean(axis=0)
        scale = max(float(np.sqrt(((optical - centre) ** 2).mean())), 1e-9)
        # From centred points of mean square 1 to (column, row) of the image.
        self.unit = np.array([[scale, 0, centre[1]], [0, scale, centre[0]], [0, 0, 1]])
        self.centred = np.column_stack([(optical - centre)[:, ::-1] / scale, np.ones(len(optical))])

    def matrix(self, transform: Transform) -> np.ndarray:
        """The matrix for centred points: float64 [3, 3]."""
        matrix = transform.matrix @ self.unit
        return matrix / matrix[2, 2]

    def design(self, transform: Transform) -> np.ndarray:
        """Derivative of SAR (row, column) by each free entry: [N, 2, P]."""
        matrix, places = self.matrix(transform), transform.apply(self.optical)
        shares = self.centred / (self.centred @ matrix[2])[:, None]
        design = np.zeros((len(shares), 2, len(self.free)))
        for index, (row, column) in enumerate(self.free):
            if row == 2:
                design[:, :, index] = -places * shares[:, column, None]
            else:
                design[:, 1 - row, index] = shares[:, column]
        return design

    def moved(self, transform: Transform, step: np.ndarray) -> Transform:
        """The transform with a step added to its free entries."""
        matrix = self.matrix(transform)
        for (row, column), change in zip(self.free, step, strict=True):
            matrix[row, column] += change
        matrix = matrix @ np.linalg.inv(self.unit)
        return Transform(transform.model, matrix / matrix[2, 2])
