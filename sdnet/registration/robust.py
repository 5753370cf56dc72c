"""Fits a transform to tie points, some of which are wrong. Equal input gives equal output."""

from dataclasses import dataclass

import cv2
import numpy as np

from sdnet.registration.config import Model
from sdnet.registration.tie_points import TiePoints
from sdnet.registration.transform import Transform, affine

_LEAST_POINTS = 8
_CONFIDENCE, _ITERATIONS, _ROUNDS = 0.9999, 10_000, 30


@dataclass(frozen=True, slots=True)
class Fit:
    """A transform, each tie point's weight in it, float64 [N] from 0, and which agree with it, bool [N]."""

    transform: Transform
    weights: np.ndarray
    inliers: np.ndarray


def residuals(ties: TiePoints, transform: Transform) -> np.ndarray:
    """Distance in SAR pixels of each tie point from where the transform maps it: float64 [N]."""
    return np.linalg.norm(ties.sar - transform.apply(ties.optical), axis=1)


def sample_affine(ties: TiePoints, tolerance_px: float) -> Transform | None:
    """The affine transform that MAGSAC finds, or None when the tie points are too few or lie on a line."""
    if len(ties) < _LEAST_POINTS:
        return None
    rows, _ = cv2.estimateAffine2D(
        ties.optical[:, ::-1], ties.sar[:, ::-1], method=cv2.USAC_MAGSAC,
        ransacReprojThreshold=tolerance_px, confidence=_CONFIDENCE, maxIters=_ITERATIONS,
    )  # fmt: skip
    return None if rows is None else affine(rows)


def refine(ties: TiePoints, start: Transform, model: Model, width_px: float) -> Fit | None:
    """Fit by least squares, reweighted until it rests; begins at `start` and stays near it.

    A weight falls smoothly from the tie point's score to 0 at a residual of width_px (Tukey's biweight):
    unlike a new sampling, it cannot jump to another, equally good subset of the points. Tie points within
    half of width_px agree. `piecewise` is fitted as affine. None when fewer than 8 points count.
    """
    transform = start
    for _ in range(_ROUNDS):
        weights = _weights(ties, transform, width_px)
        if np.count_nonzero(weights) < _LEAST_POINTS:
            return None
        fitted = _least_squares(ties, weights, model)
        if fitted is None:
            return None
        moved = np.abs(fitted.apply(ties.optical) - transform.apply(ties.optical)).max()
        transform = fitted
        if moved < 1e-4:
            break
    agree = residuals(ties, transform) <= width_px / 2
    return Fit(transform, _weights(ties, transform, width_px), agree)


def _weights(ties: TiePoints, transform: Transform, width_px: float) -> np.ndarray:
    share = np.minimum(residuals(ties, transform) / width_px, 1)
    return (1 - share**2) ** 2 * np.clip(ties.score, 0.02, 1)


def _least_squares(ties: TiePoints, weights: np.ndarray, model: Model) -> Transform | None:
    source, target = ties.optical[:, ::-1], ties.sar[:, ::-1]
    if model == "translation":
        shift = np.average(target - source, axis=0, weights=weights)
        return affine(np.column_stack([np.eye(2), shift]), "translation")
    if model == "homography":
        return _homography(source, target, weights)
    centre = np.average(source, axis=0, weights=weights)
    design = np.column_stack([source - centre, np.ones(len(source))])
    scale = np.sqrt(weights)[:, None]
    solution, _, rank, _ = np.linalg.lstsq(design * scale, target * scale, rcond=None)
    if rank < 3:
        return None
    linear = solution[:2].T
    return affine(np.column_stack([linear, solution[2] - linear @ centre]))


def _homography(source: np.ndarray, target: np.ndarray, weights: np.ndarray) -> Transform | None:
    """Direct linear transform of normalised coordinates, [N, 2] (column, row) each."""
    to_unit, from_unit = _normaliser(source), _normaliser(target)
    x, y = (source * to_unit[0, 0] + to_unit[:2, 2]).T
    u, v = (target * from_unit[0, 0] + from_unit[:2, 2]).T
    zero, one = np.zeros_like(x), np.ones_like(x)
    across = np.column_stack([x, y, one, zero, zero, zero, -u * x, -u * y, -u])
    down = np.column_stack([zero, zero, zero, x, y, one, -v * x, -v * y, -v])
    scale = np.sqrt(weights)[:, None]
    _, values, vectors = np.linalg.svd(np.concatenate([across * scale, down * scale]), full_matrices=False)
    if values[-2] < 1e-9:
        return None
    matrix = np.linalg.inv(from_unit) @ vectors[-1].reshape(3, 3) @ to_unit
    return Transform("homography", matrix / matrix[2, 2])


def _normaliser(points: np.ndarray) -> np.ndarray:
    """Moves points to their mean and scales them to a mean square of 1: float64 [3, 3]."""
    centre = points.mean(axis=0)
    scale = 1 / max(np.sqrt(((points - centre) ** 2).mean()), 1e-9)
    return np.array([[scale, 0, -scale * centre[0]], [0, scale, -scale * centre[1]], [0, 0, 1]])
