"""Decides whether tie points agree more than by chance."""

from dataclasses import dataclass
from math import lgamma, log, log10, pi

import numpy as np

from sdnet.registration.fitting.robust import Fit
from sdnet.registration.transform import Transform

_SAMPLE = 3  # tie points that define an affine transform
# With cfog_mind, 3 of 1,000 non-matching pairs have more evidence, and 3 of 116 matching pairs less.
LEAST_EVIDENCE = 12.0
# Share of the fine tie points that must agree; by chance 7 % would.
LEAST_SHARE = 0.2
# The wide search tries thousands of positions and keeps the most similar one, so even wrong tie points agree there.
# Wrong pairs had evidence to 25 and shares to 51 %; most right ones have more of one of the two.
BEYOND_DOUBT = 30.0
LEAST_SHARE_IF_WIDE = 0.6
# The longest allowed side of a SAR pixel, in optical pixels. Of 80 wrong pairs none was trusted at 1, one at 2 and
# ten at 4, where neighbouring templates see the same few SAR pixels. The rest allows for map projections.
_LONGEST_SAR_PIXEL = 2.1


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to use a transform. evidence: see `evidence`. reason: why not; empty when trusted."""

    trusted: bool
    evidence: float
    reason: str


def judge(
    found: float, fit: Fit, shape: tuple[int, int], initial: Transform, *, wide: bool = False
) -> Verdict:
    """Trust a fit to fine tie points, or say why not.

    found: evidence of the coarse tie points, at least LEAST_EVIDENCE.
    shape: of the optical image.
    initial: where the search started. By georeferences, it has the scale between the two images.
    wide: the search tried all rotations and shifts.
    """
    share = float(fit.inliers.mean())
    doubtful = wide and found < BEYOND_DOUBT
    middle = np.array(shape) / 2.0
    areas = [abs(np.linalg.det(one.jacobian(middle))) for one in (fit.transform, initial)]
    if share < LEAST_SHARE:
        reason = f"only {share:.0%} of the fine tie points agree (at least {LEAST_SHARE:.0%})"
    elif doubtful and share < LEAST_SHARE_IF_WIDE:
        reason = (
            f"only {share:.0%} of the fine tie points agree (at least {LEAST_SHARE_IF_WIDE:.0%} after a wide "
            f"search with evidence {found:.1f} < {BEYOND_DOUBT})"
        )
    elif not 0.5 < areas[0] / areas[1] < 2:
        reason = "the transform shrinks or stretches the image more than twice"
    else:
        reason = ""
    return Verdict(not reason, found, reason)


def why_too_coarse(shape: tuple[int, int], initial: Transform) -> str:
    """Why evidence would mean nothing: the SAR pixels are too large for it. Empty if they are not.

    shape, initial: as for `judge`.
    """
    area = float(abs(np.linalg.det(initial.jacobian(np.array(shape) / 2.0))))
    if area * _LONGEST_SAR_PIXEL**2 >= 1:
        return ""
    times = f"{area**-0.5:.3g}" if area else "infinitely many"
    return (
        f"a SAR pixel is {times} times as long as an optical one (at most {_LONGEST_SAR_PIXEL}); "
        "resample the optical image to pixels of that size"
    )


def evidence(points: int, inliers: int, tolerance_px: float, radius_px: int) -> float:
    """How unlikely it is that wrong tie points agree so well, as -log10 of the expected number of such fits.

    A wrong match is anywhere in its window of (2 radius_px + 1)^2 pixels. So it is within the tolerance of a
    given fit with probability p = pi tolerance_px^2 / (2 radius_px + 1)^2. The expected number of affine fits
    with so many inliers is (N - 3) C(N, k) C(k, 3) p^(k - 3) (the a contrario method of Moisan and Stival,
    2004). 0 means chance, 10 means one in 10^10. Neighbouring templates overlap, so they are not independent:
    the threshold comes from pairs that do not match.
    """
    if inliers <= _SAMPLE or points <= _SAMPLE:
        return 0.0
    chance = min(pi * tolerance_px**2 / (2 * radius_px + 1) ** 2, 1.0)
    fits = log10(points - _SAMPLE) + _log_choose(points, inliers) + _log_choose(inliers, _SAMPLE)
    return max(0.0, -(fits + (inliers - _SAMPLE) * log10(chance)))


def _log_choose(n: int, k: int) -> float:
    return (lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)) / log(10)
