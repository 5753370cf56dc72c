"""Estimates how far the SAR images of a scene are shifted against its optical ones, without labels.

For each pair, a surface says how well the edges agree, in each orientation, at each shift of up to
`REACH_PX`. The peak of a single pair is often wrong, because speckle and land cover differ. The mean
surface of a scene is reliable, because the pairs of a scene have the same error of geolocation. A
shift is trusted only if the two halves of the scene's pairs, each alone, give the same one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

REACH_PX = 12  # the largest shift looked for in each direction
HALVES_AGREE_PX = 3.0  # the largest distance between the shifts that the two halves of a scene find
# A pair is listed as misregistered if its own clear peak is farther than this from its scene's shift.
MISREGISTERED_PX = 6.0
# A peak is clear if it is this many standard deviations above its surface's mean. None of 450
# non-matching pairs reached 3.9; one in sixteen of 464 matching pairs did.
_CLEAR_PEAK = 4.0
_ORIENTATIONS = 6
_SIGMA_OPTICAL, _SIGMA_SAR, _SIGMA_BLUR = 1.0, 1.5, 0.8


@dataclass(frozen=True, slots=True)
class SceneShift:
    """Shift of a scene's SAR images against its optical ones, in pixels; 0, 0 unless trusted.

    reason: why it is not trusted; empty if it is.
    misregistered: indices into the scene's pairs.
    """

    rows: int
    columns: int
    reason: str
    misregistered: tuple[int, ...] = ()

    @property
    def trusted(self) -> bool:
        return not self.reason

    @property
    def distance_px(self) -> float:
        return float(np.hypot(self.rows, self.columns))


def agreement(optical: np.ndarray, sar: np.ndarray) -> np.ndarray:
    """Correlation of the edges of two grey images at each shift: float32 [S, S], S = 2 REACH_PX + 1.

    optical, sar: uint8 of one shape. Row i, column j is the shift of SAR by i - REACH_PX rows and
    j - REACH_PX columns. An image without edges gives zeros.
    """
    spectra = [
        [cv2.dft(channel, flags=cv2.DFT_COMPLEX_OUTPUT) for channel in _edges(image, sigma)]
        for image, sigma in ((optical, _SIGMA_OPTICAL), (sar, _SIGMA_SAR))
    ]
    product = sum(cv2.mulSpectrums(s, o, 0, conjB=True) for o, s in zip(*spectra, strict=True))
    surface = cv2.dft(product, flags=cv2.DFT_INVERSE | cv2.DFT_REAL_OUTPUT | cv2.DFT_SCALE)
    reach = np.arange(-REACH_PX, REACH_PX + 1)
    return surface[np.ix_(reach % surface.shape[0], reach % surface.shape[1])]


def scene_shift(surfaces: Sequence[np.ndarray]) -> SceneShift:
    """Estimate the shift of a scene from `agreement` of its pairs; a pair without one gives NaN."""
    whole_stack = np.stack(surfaces).astype(np.float64)
    usable = np.flatnonzero(np.isfinite(whole_stack).all(axis=(1, 2)))
    if len(usable) < 2:
        return SceneShift(0, 0, f"it has {len(usable)} usable pair(s), and a check of a shift needs two")
    stack = whole_stack[usable]
    whole, even, odd = (_peak(part.mean(axis=0)) for part in (stack, stack[::2], stack[1::2]))
    apart = float(np.hypot(*(even - odd)))
    if apart > HALVES_AGREE_PX:
        return SceneShift(0, 0, f"its two halves find shifts that are {apart:.1f} px apart")
    if np.abs(whole).max() == REACH_PX:
        return SceneShift(0, 0, f"its best shift is at the limit of {REACH_PX} px")
    strays = tuple(int(usable[row]) for row, surface in enumerate(stack) if _is_misregistered(surface, whole))
    return SceneShift(int(whole[0]), int(whole[1]), "", strays)


def _is_misregistered(surface: np.ndarray, shift: np.ndarray) -> bool:
    spread = surface.std()
    clear = spread > 0 and (surface.max() - surface.mean()) / spread >= _CLEAR_PEAK
    return bool(clear and np.hypot(*(_peak(surface) - shift)) > MISREGISTERED_PX)


def _peak(surface: np.ndarray) -> np.ndarray:
    """Shift of the highest point: int [2], rows and columns."""
    return np.array(np.unravel_index(surface.argmax(), surface.shape)) - REACH_PX


def _edges(image: np.ndarray, sigma: float) -> list[np.ndarray]:
    """Strength of edges by orientation, each float32 [H, W]; all together have length 1."""
    smooth = cv2.GaussianBlur(np.log1p(image.astype(np.float32)), (0, 0), sigma)
    across, down = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    window = cv2.createHanningWindow(image.shape[::-1], cv2.CV_32F)
    channels = []
    for angle in np.arange(_ORIENTATIONS) * np.pi / _ORIENTATIONS:
        strength = np.abs(np.cos(angle) * across + np.sin(angle) * down)
        root = np.sqrt(cv2.GaussianBlur(strength, (0, 0), _SIGMA_BLUR))
        channels.append((root - root.mean()) * window)
    length = np.sqrt(sum(float((channel * channel).sum()) for channel in channels))
    return [(channel / max(length, 1e-12)).astype(np.float32) for channel in channels]
