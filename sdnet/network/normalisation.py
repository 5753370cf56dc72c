"""How layers are normalised: per batch as published, per modality, or per sample in three ways.

Shape letters: B batch, C channels, G groups of channels, H rows, W columns.
"""

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

EPSILON = 1e-5
FRN_EPSILON = 1e-6
GROUP_SIZE = 8  # channels; a layer of fewer is one group


def normalise_rows(norm: ops.BatchNorm, x_BCHW: Tensor, rows: int) -> Tensor:
    """Cut [B, C, H, W] into `rows` equal parts in memory order; give each mean 0 and variance 1.

    It runs as BatchNorm in training mode over a batch of one with `rows` channels: on CPU that is
    2.7 times faster than arithmetic on whole arrays.
    """
    one, zero = ops.ones((rows,), ms.float32), ops.zeros((rows,), ms.float32)
    return norm(x_BCHW.reshape(1, rows, -1, x_BCHW.shape[3]), one, zero, zero, one)[0].reshape(x_BCHW.shape)


def _norm_of_rows() -> ops.BatchNorm:
    return ops.BatchNorm(is_training=True, epsilon=EPSILON, momentum=0.0)


def _per_channel(name: str, channels: int, value: float) -> Parameter:
    return Parameter(Tensor(np.full((1, channels, 1, 1), value, np.float32)), name=name)


class InstanceNorm(nn.Cell):
    """Give each channel of each sample mean 0 and variance 1; no parameters, no statistics.

    A sample's result does not depend on its batch, so training, evaluation, and any spread of a
    batch over ranks compute the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = _norm_of_rows()

    def construct(self, x_BCHW: Tensor) -> Tensor:
        return normalise_rows(self.norm, x_BCHW, x_BCHW.shape[0] * x_BCHW.shape[1])


class GroupNorm(nn.Cell):
    """Give each group of channels of each sample mean 0 and variance 1; then a factor and an offset a channel.

    Wu and He, "Group Normalization", 2018. Channels of a group keep their relative strength.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.groups = max(1, channels // GROUP_SIZE)
        self.norm = _norm_of_rows()
        self.gamma = _per_channel("gamma", channels, 1.0)
        self.beta = _per_channel("beta", channels, 0.0)

    def construct(self, x_BCHW: Tensor) -> Tensor:
        return normalise_rows(self.norm, x_BCHW, x_BCHW.shape[0] * self.groups) * self.gamma + self.beta


class FilterResponseNorm(nn.Cell):
    """Divide each channel of each sample by its root mean square; then a factor and an offset a channel.

    Singh and Krishnan, "Filter Response Normalization Layer", 2019. A `ThresholdedUnit` follows it.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.gamma = _per_channel("gamma", channels, 1.0)
        self.beta = _per_channel("beta", channels, 0.0)

    def construct(self, x_BCHW: Tensor) -> Tensor:
        power_BC11 = (x_BCHW * x_BCHW).mean(axis=(2, 3), keep_dims=True)
        return x_BCHW * (self.gamma * ops.rsqrt(power_BC11 + FRN_EPSILON)) + self.beta


class ThresholdedUnit(nn.Cell):
    """The larger of the input and a learned threshold a channel: a ReLU whose corner may move."""

    def __init__(self, channels: int):
        super().__init__()
        self.tau = _per_channel("tau", channels, 0.0)

    def construct(self, x_BCHW: Tensor) -> Tensor:
        return ops.maximum(x_BCHW, self.tau)


class Offset(nn.Cell):
    """Add a learned number to each channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.beta = _per_channel("beta", channels, 0.0)

    def construct(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.beta


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


class Norms:
    """The normalisation layers of a recipe, and the activations that belong to them."""

    def __init__(self, kind: str, training: bool):
        """kind: `Recipe.normalisation`."""
        self._kind, self._training = kind, training

    def own(self, channels: int) -> nn.Cell:
        """For a layer that sees one modality only, or whose statistics nobody evaluates."""
        if self._kind == "instance":
            return InstanceNorm()
        if self._kind == "group":
            return GroupNorm(channels)
        if self._kind == "frn":
            return FilterResponseNorm(channels)
        return batch_norm(channels, self._training)

    def shared(self, channels: int) -> nn.Cell:
        """For a layer of the mapping that both modalities share."""
        return ModalityNorm(channels, self._training) if self._kind == "modality" else self.own(channels)

    def last(self, channels: int) -> nn.Cell:
        """For the descriptor. It has one value a channel, and a single value cannot be normalised by itself."""
        if self._kind == "instance":
            return nn.Identity()
        return Offset(channels) if self._kind in ("group", "frn") else self.shared(channels)

    def activation(self, channels: int) -> nn.Cell:
        """What follows a layer that is normalised."""
        return ThresholdedUnit(channels) if self._kind == "frn" else nn.ReLU()
