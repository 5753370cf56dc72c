"""Log-Gabor filters: the responses of an image by wavelength and orientation.

A filter is Gaussian in the logarithm of the frequency and in the angle. It passes one half of the
frequency plane only, so a response is complex: its magnitude is the local amplitude at that
wavelength and orientation, its angle the local phase.
"""

from collections.abc import Iterator
from functools import lru_cache

import cv2
import numpy as np

ORIENTATIONS = 6
# Width of a filter: sigma of the logarithm of frequency (about two octaves), and of the angle in radians.
_RADIAL_RATIO = 0.55
_ANGULAR_SIGMA = np.pi / ORIENTATIONS / 1.2
_LOW_PASS, _LOW_PASS_ORDER = 0.45, 30  # cuts the corners of the frequency plane, in cycles per pixel
_MARGIN = 16  # mirrored pixels on each side, because the transform wraps around


def log_gabor_responses(
    image: np.ndarray, wavelengths: tuple[float, ...]
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield (orientation, even, odd) of each filter, orientation by orientation, wavelengths inside.

    image: [H, W], any real type. wavelengths: in pixels. orientation: 0 to ORIENTATIONS - 1, the
    direction of the wave in steps of 30 degrees, counter-clockwise from the column axis.
    even, odd: float32 [H, W], real and imaginary part of the response.
    """
    rows, columns = image.shape
    size = tuple(cv2.getOptimalDFTSize(length + 2 * _MARGIN) for length in (rows, columns))
    padded = cv2.copyMakeBorder(
        image.astype(np.float32),
        _MARGIN, size[0] - rows - _MARGIN, _MARGIN, size[1] - columns - _MARGIN, cv2.BORDER_REFLECT,
    )  # fmt: skip
    # Without the mean, a bright image leaks nothing into the lowest frequencies.
    spectrum = cv2.dft(padded - padded.mean(), flags=cv2.DFT_COMPLEX_OUTPUT)
    inside = slice(_MARGIN, _MARGIN + rows), slice(_MARGIN, _MARGIN + columns)
    for orientation in range(ORIENTATIONS):
        for wavelength in wavelengths:
            gain = _filter(size, wavelength, orientation)
            response = cv2.idft(spectrum * gain[:, :, None], flags=cv2.DFT_SCALE)[inside]
            yield orientation, response[:, :, 0], response[:, :, 1]


@lru_cache(maxsize=96)
def _filter(size: tuple[int, int], wavelength: float, orientation: int) -> np.ndarray:
    """Gain at each frequency, float32 of the transform's size."""
    row_frequency = np.fft.fftfreq(size[0])[:, None]
    column_frequency = np.fft.fftfreq(size[1])[None, :]
    radius = np.hypot(row_frequency, column_frequency)
    radius[0, 0] = 1.0  # its logarithm is taken; the gain there is set to 0 below
    octave = np.log(radius * wavelength) / np.log(_RADIAL_RATIO)
    gain = np.exp(-0.5 * octave**2) / (1 + (radius / _LOW_PASS) ** _LOW_PASS_ORDER)
    gain[0, 0] = 0.0
    turn = np.arctan2(-row_frequency, column_frequency) - orientation * np.pi / ORIENTATIONS
    angle = np.arctan2(np.sin(turn), np.cos(turn))
    return (gain * np.exp(-0.5 * (angle / _ANGULAR_SIGMA) ** 2)).astype(np.float32)
