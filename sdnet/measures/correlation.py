"""Finds where a template fits best: dense normalised cross-correlation of channels, and its sub-pixel peak."""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True, slots=True)
class Peak:
    """The best position on a correlation surface.

    row, column: offset of the template's first pixel in the searched image, with a fraction.
    score: correlation there, from -1 to 1.
    second: the best score outside a neighbourhood of the peak.
    inside: the peak is not on the border of the surface, so a better one outside is unlikely.
    """

    row: float
    column: float
    score: float
    second: float
    inside: bool


def correlate(template: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Normalised cross-correlation at every offset: float32 [H - h + 1, W - w + 1], each from -1 to 1.

    template: [C, h, w]; image: [C, H, W], not smaller. The entry (r, c) compares the template with
    image[:, r : r + h, c : c + w]. Products are summed over channels, so the channels must be
    balanced (mean 0 at each pixel), as those of `MEASURES` are. Without structure the entry is 0.
    """
    (channels, rows, columns), (_, height, width) = template.shape, image.shape
    size = cv2.getOptimalDFTSize(height), cv2.getOptimalDFTSize(width)
    total = np.zeros(size, np.float32)
    for channel in range(channels):
        wide, narrow = (
            cv2.dft(_padded(part[channel], size), flags=0, nonzeroRows=part.shape[1])
            for part in (image, template)
        )
        total += cv2.mulSpectrums(wide, narrow, 0, conjB=True)
    surface = cv2.idft(total, flags=cv2.DFT_SCALE | cv2.DFT_REAL_OUTPUT)
    valid = surface[: height - rows + 1, : width - columns + 1]
    energy = np.einsum("chw,chw->hw", image, image)
    sums = cv2.integral(energy, sdepth=cv2.CV_64F)
    under = sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns] + sums[:-rows, :-columns]
    own = float(np.einsum("chw,chw->", template, template))
    norm = np.sqrt(np.maximum(under, 0) * own)
    return np.where(norm > 1e-6, valid / np.maximum(norm, 1e-6), 0).astype(np.float32)


def find_peak(surface: np.ndarray, exclude_px: int = 6) -> Peak:
    """The largest entry of a surface, refined by a parabola through its neighbours in each direction.

    The offset added by the parabola is at most half a pixel. Of equal entries the first in row order counts.
    exclude_px: half the edge of the square around the peak that is excluded for `second`.
    """
    row, column = (int(index) for index in np.unravel_index(int(np.argmax(surface)), surface.shape))
    rows, columns = surface.shape
    best = float(surface[row, column])
    rest = surface.copy()
    rest[
        max(row - exclude_px, 0) : row + exclude_px + 1, max(column - exclude_px, 0) : column + exclude_px + 1
    ] = -1
    inside = 0 < row < rows - 1 and 0 < column < columns - 1
    if not inside:
        return Peak(float(row), float(column), best, float(rest.max()), False)
    return Peak(
        row + float(vertex(surface[row - 1 : row + 2, column])),
        column + float(vertex(surface[row, column - 1 : column + 2])),
        best,
        float(rest.max()),
        True,
    )


def vertex(three: np.ndarray) -> np.ndarray:
    """Where the parabola through three neighbours, [3, ...], has its maximum: from -0.5 to 0.5; 0 without one."""
    before, at, after = three.astype(np.float64)
    curvature = before - 2 * at + after
    place = 0.5 * (before - after) / np.where(curvature < 0, curvature, 1)
    return np.where(curvature < 0, np.clip(place, -0.5, 0.5), 0.0)


def _padded(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, columns = image.shape
    return cv2.copyMakeBorder(image, 0, size[0] - rows, 0, size[1] - columns, cv2.BORDER_CONSTANT, value=0)
