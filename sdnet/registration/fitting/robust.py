"""Estimates a first transform from tie points with outliers, and finds the inliers. Deterministic."""

from dataclasses import dataclass

import cv2
import numpy as np

from sdnet.registration.tie_points import TiePoints
from sdnet.registration.transform import Transform, affine

LEAST_POINTS = 8
_CONFIDENCE, _ITERATIONS = 0.9999, 10_000


@dataclass(frozen=True, slots=True)
class Fit:
    """A transform. weights: float64 [N], 0 or more, of each tie point. inliers: bool [N], those that agree."""

    transform: Transform
    weights: np.ndarray
    inliers: np.ndarray


def residuals(ties: TiePoints, transform: Transform) -> np.ndarray:
    """Distance in SAR pixels of each tie point from where the transform maps it: float64 [N]."""
    return np.linalg.norm(ties.sar - transform.apply(ties.optical), axis=1)


def sample_affine(ties: TiePoints, tolerance_px: float) -> Transform | None:
    """The affine transform that MAGSAC finds, or None when the tie points are too few or collinear."""
    if len(ties) < LEAST_POINTS:
        return None
    rows, _ = cv2.estimateAffine2D(
        ties.optical[:, ::-1], ties.sar[:, ::-1], method=cv2.USAC_MAGSAC,
        ransacReprojThreshold=tolerance_px, confidence=_CONFIDENCE, maxIters=_ITERATIONS,
    )  # fmt: skip
    return None if rows is None else affine(rows)


def agreeing(ties: TiePoints, transform: Transform, width_px: float) -> Fit:
    """How each tie point agrees with a transform.

    A weight falls smoothly from the tie point's score to 0 at a residual of width_px (Tukey's biweight).
    Tie points within half of width_px agree.
    """
    missing = residuals(ties, transform)
    share = np.minimum(missing / width_px, 1)
    return Fit(transform, (1 - share**2) ** 2 * np.clip(ties.score, 0.02, 1), missing <= width_px / 2)
