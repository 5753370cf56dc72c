"""The measures: a grey image [H, W] to structure channels, float32 [C, H, W].

Every measure ends in `_balanced`: at each pixel the channels have mean 0 and a length near 1 where there is
structure, far below 1 where there is none. So the correlation of two images (see `correlation`) depends on the
position of their structure, not on contrast, and 1 means equal structure.

Published ideas, our own code: log-Gabor amplitude and phase congruency (Kovesi 1999), CFOG (Ye et al.
2019), MIND (Heinrich et al. 2012).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import cv2
import numpy as np

from sdnet.measures.filters import ORIENTATIONS, log_gabor_responses

Measure = Callable[[np.ndarray], np.ndarray]

# Wavelengths in pixels. In SAR, amplitude below 6 px is mostly speckle.
_AMPLITUDE_WAVELENGTHS = (6.0, 12.0)
_PHASE_WAVELENGTHS = (4.0, 8.0, 16.0)
_GRADIENT_ORIENTATIONS = 9
# Share of the mean length that is added to a length before the division by it.
_FLOOR = 0.1


def log_gabor(image: np.ndarray) -> np.ndarray:
    """Amplitude in 6 orientations, summed over wavelengths: float32 [6, H, W]."""
    amplitude = np.zeros((ORIENTATIONS, *image.shape), np.float32)
    for orientation, even, odd in log_gabor_responses(image, _AMPLITUDE_WAVELENGTHS):
        amplitude[orientation] += cv2.magnitude(even, odd)
    return _balanced(_blurred(amplitude, 1.0))


def cfog(image: np.ndarray) -> np.ndarray:
    """Channel features of oriented gradients, 9 orientations over half a turn: float32 [9, H, W]."""
    grey = image.astype(np.float32)
    across = cv2.Sobel(grey, cv2.CV_32F, 1, 0, ksize=3)
    down = cv2.Sobel(grey, cv2.CV_32F, 0, 1, ksize=3)
    angles = np.arange(_GRADIENT_ORIENTATIONS) * np.pi / _GRADIENT_ORIENTATIONS
    channels = np.stack([np.abs(np.cos(a) * across + np.sin(a) * down) for a in angles])
    # Orientations form a ring: the first is a neighbour of the last.
    smooth = (np.roll(channels, 1, axis=0) + 2 * channels + np.roll(channels, -1, axis=0)) / 4
    return _balanced(_blurred(smooth, 1.5))


def mind(image: np.ndarray) -> np.ndarray:
    """Modality-independent neighbourhood descriptor, 8 neighbours: float32 [8, H, W].

    A channel is exp(-D / V): D is the squared difference between the patch around a pixel and the
    patch around one neighbour, V the mean of D over the neighbours.
    """
    grey = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.0)
    padded = cv2.copyMakeBorder(grey, 2, 2, 2, 2, cv2.BORDER_REFLECT)
    rows, columns = image.shape
    steps = [(row, column) for row in (0, 2, 4) for column in (0, 2, 4) if (row, column) != (2, 2)]
    distances = np.stack([(padded[r : r + rows, c : c + columns] - grey) ** 2 for r, c in steps])
    distances = _blurred(distances, 2.0)
    mean = distances.mean(axis=0)
    variance = np.maximum(mean, 1e-3 * float(mean.mean()) + 1e-6)
    return _balanced(np.exp(-distances / variance))


def phase_congruency(image: np.ndarray) -> np.ndarray:
    """Phase congruency in 6 orientations, each from 0 to 1 before balancing: float32 [6, H, W].

    Energy (length of the sum of responses over wavelengths) above noise, divided by the amplitudes
    summed over wavelengths and orientations. Noise is the median amplitude of the shortest wavelength.
    """
    energy = np.zeros((2, ORIENTATIONS, *image.shape), np.float32)
    amplitude = np.zeros((ORIENTATIONS, *image.shape), np.float32)
    noise = np.zeros(ORIENTATIONS, np.float32)
    for orientation, even, odd in log_gabor_responses(image, _PHASE_WAVELENGTHS):
        length = cv2.magnitude(even, odd)
        if not amplitude[orientation].any():
            noise[orientation] = np.median(length)
        energy[0, orientation] += even
        energy[1, orientation] += odd
        amplitude[orientation] += length
    above = np.maximum(np.hypot(*energy) - noise[:, None, None], 0)
    total = amplitude.sum(axis=0)
    return _balanced(_blurred(above / (total + 1e-3 * total.mean() + 1e-6), 1.5))


def cfog_mind(image: np.ndarray) -> np.ndarray:
    """The channels of `cfog` and of `mind`, each with half of the weight: float32 [17, H, W]."""
    return np.concatenate([cfog(image), mind(image)]) * np.float32(np.sqrt(0.5))


def _blurred(channels: np.ndarray, sigma_px: float) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(channel, (0, 0), sigma_px) for channel in channels])


def _balanced(channels: np.ndarray) -> np.ndarray:
    """Mean 0 over the channels of each pixel, then divided by length plus a share of the mean length."""
    centred = channels - channels.mean(axis=0)
    length = np.sqrt(np.einsum("chw,chw->hw", centred, centred))
    scale = length + _FLOOR * length.mean()
    return (centred / np.maximum(scale, 1e-12)).astype(np.float32)


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "log_gabor": log_gabor,
        "cfog": cfog,
        "mind": mind,
        "phase_congruency": phase_congruency,
        "cfog_mind": cfog_mind,
    }
)
