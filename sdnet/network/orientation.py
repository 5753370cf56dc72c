"""Edge strength by orientation, computed inside the network from its normalised patch.

Optical and SAR patches differ in grey values, but have the same edges with the same orientations. These
channels expose the edges without training. Their weights are fixed, so an exported network needs nothing else.

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
        gaussian, slope = _gaussian(sigma, _DERIVATIVE_RADIUS), _slope(sigma, _DERIVATIVE_RADIUS)
        # Column filters of both derivatives, then the row filter of each.
        self.down = _kernels([gaussian[:, None], slope[:, None]])
        self.across = _kernels([slope[None, :], gaussian[None, :]])
        # The derivative at an angle is cos(angle) d/dx + sin(angle) d/dy.
        angles = np.arange(count) * np.pi / count
        self.steer = Tensor(
            np.stack([np.cos(angles), np.sin(angles)], 1)[:, :, None, None].astype(np.float32)
        )
        blur = _gaussian(SIGMA_BLUR, _BLUR_RADIUS)
        self.blur = _kernels([np.outer(blur, blur)] * count)
        self.pad_derivative = nn.ReflectionPad2d(_DERIVATIVE_RADIUS)
        self.pad_blur = nn.ReflectionPad2d(_BLUR_RADIUS)
        wide, small = 2 * _DERIVATIVE_RADIUS + 1, 2 * _BLUR_RADIUS + 1
        self.filter_down = ops.Conv2D(2, (wide, 1), pad_mode="valid")
        self.filter_across = ops.Conv2D(2, (1, wide), pad_mode="valid", group=2)
        self.mix = ops.Conv2D(count, 1, pad_mode="valid")
        self.smooth = ops.Conv2D(count, small, pad_mode="valid", group=count)

    def construct(self, x_B1HW: Tensor) -> Tensor:
        """[B, N, H, W], 0 or more, of standardised patches; no gradient passes."""
        columns_B2HW = self.filter_down(self.pad_derivative(x_B1HW), self.down)
        slopes_B2HW = self.filter_across(columns_B2HW, self.across)
        edges_BNHW = ops.abs(self.mix(slopes_B2HW, self.steer))
        strength_BNHW = self.smooth(self.pad_blur(edges_BNHW), self.blur)
        relative_BNHW = strength_BNHW / (strength_BNHW.mean(axis=(1, 2, 3), keep_dims=True) + 1e-7)
        return ops.stop_gradient(ops.sqrt(relative_BNHW + 1e-12))


def _kernels(filters: list[np.ndarray]) -> Tensor:
    """Float32 [N, 1, rows, columns]."""
    return Tensor(np.stack(filters)[:, None].astype(np.float32))


def _gaussian(sigma: float, radius: int) -> np.ndarray:
    weights = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    return weights / weights.sum()


def _slope(sigma: float, radius: int) -> np.ndarray:
    """First derivative of a Gaussian, [2 radius + 1]."""
    return -np.arange(-radius, radius + 1) / sigma**2 * _gaussian(sigma, radius)
