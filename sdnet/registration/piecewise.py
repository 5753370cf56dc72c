"""Local shifts on top of an affine transform: for relief, which no single matrix describes."""

import numpy as np

from sdnet.registration.robust import Fit
from sdnet.registration.tie_points import TiePoints
from sdnet.registration.transform import ShiftGrid, Transform

_NODES = 16  # along the longer edge, at most
_LEAST_SPACING_PX = 64.0
_PRIOR = 0.5  # tie points' worth of belief in no local shift


def with_local_shifts(fit: Fit, ties: TiePoints, shape: tuple[int, int]) -> Fit:
    """The affine fit plus a smooth grid of shifts, each the weighted mean of the residuals around its node.

    A residual counts by its tie point's weight and by a Gaussian of its distance; where no tie point
    is near, the shift falls to 0. shape: of the optical image.
    """
    spacing = max(_LEAST_SPACING_PX, max(shape) / _NODES)
    nodes = [int(np.ceil((length - 1) / spacing)) + 1 for length in shape]
    place = np.stack(np.meshgrid(*(np.arange(count) * spacing for count in nodes), indexing="ij"), axis=-1)
    missing = ties.sar - fit.transform.apply(ties.optical)
    apart = place[:, :, None] - ties.optical
    near = np.exp(-0.5 * (apart**2).sum(axis=3) / spacing**2) * (fit.weights / max(fit.weights.max(), 1e-9))
    shifts = (near @ missing) / (near.sum(axis=2, keepdims=True) + _PRIOR)
    transform = Transform("piecewise", fit.transform.matrix, ShiftGrid(spacing, shifts))
    return Fit(transform, fit.weights, fit.inliers)
