"""The methods that `benchmarks/register.py` compares: ours, and common baselines."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from sdnet.registration.config import RegisterConfig
from sdnet.registration.images import image_from_array
from sdnet.registration.pipeline import register_images
from sdnet.registration.transform import affine

TEMPLATES = ("log_gabor", "cfog", "mind", "phase_congruency", "cfog_mind")
NETWORK = ("network", "combined")

Pair = tuple[np.ndarray, np.ndarray]  # optical and SAR, uint8 [H, W] of one shape
Found = tuple[np.ndarray | None, bool, float]  # matrix [3, 3] on (column, row), trusted, evidence


def ours(method: str, wide: bool, net: Any) -> Callable[[Pair], Found]:
    """Our registration, with templates of one measure, with the network, or with both."""
    config = RegisterConfig(
        search="wide" if wide else "near",
        method=method if method in NETWORK else "templates",  # type: ignore[arg-type]
        measure="cfog_mind" if method in NETWORK else method,
    )

    def run(pair: Pair) -> Found:
        optical, sar = map(image_from_array, pair)
        found = register_images(optical, sar, config, net)
        matrix = None if found.transform is None else found.transform.matrix
        return matrix, found.verdict.trusted, found.verdict.evidence

    return run


def phase_correlation(pair: Pair) -> Found:
    window = cv2.createHanningWindow(pair[0].shape[::-1], cv2.CV_32F)
    optical, sar = (image.astype(np.float32) for image in pair)
    (right, down), response = cv2.phaseCorrelate(optical, sar, window)
    return np.array([[1, 0, right], [0, 1, down], [0, 0, 1.0]]), True, response


def sift(pair: Pair) -> Found:
    finder = cv2.SIFT_create(nfeatures=2000)  # type: ignore[attr-defined]
    (points, first), (others, second) = (finder.detectAndCompute(image, None) for image in pair)
    matches = cv2.BFMatcher(cv2.NORM_L2).knnMatch(first, second, k=2)
    good = [best for best, other in matches if best.distance < 0.8 * other.distance]
    if len(good) < 4:
        return None, True, len(good)
    source = np.array([points[match.queryIdx].pt for match in good])
    target = np.array([others[match.trainIdx].pt for match in good])
    rows, _ = cv2.estimateAffine2D(source, target, method=cv2.USAC_MAGSAC, ransacReprojThreshold=3.0)
    return (None if rows is None else affine(rows).matrix), True, len(good)


def ecc(pair: Pair) -> Found:
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-5)
    try:
        score, rows = cv2.findTransformECC(
            *pair, np.eye(2, 3, dtype=np.float32), cv2.MOTION_AFFINE, stop, None, 5
        )
    except cv2.error:  # it does not converge
        return None, True, 0.0
    return affine(rows).matrix, True, score


def ecc_gradients(pair: Pair) -> Found:
    slopes = []
    for image in pair:
        grey = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 2.0)
        slopes.append(cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)))
    return ecc((slopes[0], slopes[1]))


BASELINES: dict[str, Callable[[Pair], Found]] = {
    "phase_correlation": phase_correlation,
    "sift": sift,
    "ecc": ecc,
    "ecc_gradients": ecc_gradients,
}
