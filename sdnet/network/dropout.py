"""Repeatable dropout: the mask is a hash of each element's position, not the next draw of a generator.

On CPU, MindSpore's own dropout in GRAPH_MODE cannot be reset to an earlier state, and its draws depend on the
distribution of samples over ranks. Here only (seed, step, position of the sample in the global batch, modality,
index of the element) decide whether an element is dropped. So a resumed run, or one with another number of
ranks, drops the same elements, and no mask is copied to the device.
"""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

BITS = 24  # bits of the hash that are compared with the probability


def mix(x: Tensor) -> Tensor:
    """Scramble int32 bits so that each input bit moves about half of the output bits.

    The constants are those of Chris Wellons' `lowbias32` (hash-prospector, public domain), for
    unsigned numbers. int32 products wrap to the same bits; the masks make `>>` unsigned.
    """
    x = ops.bitwise_xor(x, ops.bitwise_and(ops.bitwise_right_shift(x, 16), 0xFFFF))
    x = x * 0x7FEB352D
    x = ops.bitwise_xor(x, ops.bitwise_and(ops.bitwise_right_shift(x, 15), 0x1FFFF))
    x = x * (0x846CA68B - 2**32)
    return ops.bitwise_xor(x, ops.bitwise_and(ops.bitwise_right_shift(x, 16), 0xFFFF))


class ReplayedDropout(nn.Cell):
    """Zero each element with `probability` and scale the others by 1 / (1 - probability).

    shape: of one sample, [C, H, W]. probability is in [0, 1); at 0 the input passes unchanged.
    """

    def __init__(self, probability: float, seed: int, shape: tuple[int, int, int]):
        super().__init__()
        self.active = probability > 0
        self.threshold = round(probability * 2**BITS)
        self.scale = 1.0 / (1.0 - probability)
        self.seed = Tensor(np.int32(seed))
        self.element_CHW = Tensor(np.arange(np.prod(shape), dtype=np.int32).reshape(1, *shape))

    def construct(self, x_BCHW: Tensor, step: Tensor, first: Tensor, modality: int) -> Tensor:
        """Drop from [B, C, H, W].

        step: int32 scalar. first: int32 scalar, position of this batch's first sample in the
        global batch. modality: 0 optical, 1 SAR.
        """
        if not self.active:
            return x_BCHW
        position_B = first + ops.arange(x_BCHW.shape[0], dtype=ms.int32)
        key_B = mix(mix(mix(self.seed) + step) + 2 * position_B + modality)
        draw_BCHW = mix(key_B.reshape(-1, 1, 1, 1) + mix(self.element_CHW))
        uniform_BCHW = ops.bitwise_and(ops.bitwise_right_shift(draw_BCHW, 32 - BITS), 2**BITS - 1)
        kept_BCHW = ops.cast(uniform_BCHW >= self.threshold, x_BCHW.dtype)
        return x_BCHW * (kept_BCHW * self.scale)
