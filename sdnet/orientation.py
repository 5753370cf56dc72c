"""Edge strength by orientation, computed inside the network from its normalised patch.

Optical and SAR patches disagree about grey values and agree about where edges lie and how they
run; these channels say that without being learned. Their weights are fixed, so an exported
network needs nothing else.

Shape letters: B batch, N orientations, H rows, W columns.
"""

import numpy as np
from mindspore import Tensor, nn, ops

# Widths in pixels: of the derivative for each modality (speckle needs the wider), and of the blur after it.
SIGMA_OPTICAL, SIGMA_SAR, SIGMA_BLUR = 1.0, 1.5, 0.8
_DERIVATIVE_RADIUS, _BLUR_RADIUS = 5, 2


class OrientationChannels(nn.Cell):
    """Square root of the blurred strength of edges in `count` orientations, relative to its mean.

    Orientations are spread evenly over 180 degrees; the sign of an edge does not count. Borders
    are reflected. A constant patch gives zeros (1e-6).
    """

    def __init__(self, count: int, sigma: float):
        super().__init__()
        self.derivative = Tensor(derivative_kernels(count, sigma))
        blur = np.outer(*[_gaussian(SIGMA_BLUR, _BLUR_RADIUS)] * 2)
        self.blur = Tensor(np.tile(blur, (count, 1, 1, 1)).astype(np.float32))
        self.pad_derivative = nn.ReflectionPad2d(_DERIVATIVE_RADIUS)
        self.pad_blur = nn.ReflectionPad2d(_BLUR_RADIUS)
        self.convolve = ops.Conv2D(count, 2 * _DERIVATIVE_RADIUS + 1, pad_mode="valid")
        self.smooth = ops.Conv2D(count, 2 * _BLUR_RADIUS + 1, pad_mode="valid", group=count)

    def construct(self, x_B1HW: Tensor) -> Tensor:
        """[B, N, H, W], 0 or more, of standardised patches; no gradient passes."""
        edges_BNHW = ops.abs(self.convolve(self.pad_derivative(x_B1HW), self.derivative))
        strength_BNHW = self.smooth(self.pad_blur(edges_BNHW), self.blur)
        relative_BNHW = strength_BNHW / (strength_BNHW.mean(axis=(1, 2, 3), keep_dims=True) + 1e-7)
        return ops.stop_gradient(ops.sqrt(relative_BNHW + 1e-12))


def derivative_kernels(count: int, sigma: float) -> np.ndarray:
    """First derivatives of a Gaussian at `count` angles from 0 to below 180 degrees: float32 [N, 1, k, k]."""
    gaussian = _gaussian(sigma, _DERIVATIVE_RADIUS)
    slope = -np.arange(-_DERIVATIVE_RADIUS, _DERIVATIVE_RADIUS + 1) / sigma**2 * gaussian
    across, down = np.outer(gaussian, slope), np.outer(slope, gaussian)
    angles = np.arange(count) * np.pi / count
    kernels = [np.cos(angle) * across + np.sin(angle) * down for angle in angles]
    return np.stack(kernels)[:, None].astype(np.float32)


def _gaussian(sigma: float, radius: int) -> np.ndarray:
    weights = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    return weights / weights.sum()
