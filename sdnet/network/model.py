"""SDNet: two grey patches in, embeddings, low-level descriptors and reconstructions out.

Source: "Self-Distillation Feature Learning Network for Optical and SAR Image Registration",
IEEE TGRS 2022 (document 9770793). Layers are numbered as in published checkpoints, so
`embedding.14.weight` here is `model.embedding.14.weight` there.

Shape letters: B batch, C channels, H rows (64), W columns (64), D descriptor length (128).
"""

import mindspore as ms
from mindspore import Tensor, nn, ops

from sdnet.config import Recipe
from sdnet.network.cpu import choose_kernels
from sdnet.network.dropout import ReplayedDropout
from sdnet.network.normalisation import Norms
from sdnet.network.orientation import SIGMA_OPTICAL, SIGMA_SAR, OrientationChannels

choose_kernels()

PATCH = 64
DESCRIPTOR = 128  # numbers in an embedding
# Layers of `embedding` that `embed` treats specially.
DROPOUT_LAYER, LAST_CONVOLUTION = 13, 14
NORM_LAYERS = (2, 5, 8, 11, 15)


# Outputs of SDNet for B pairs, in this order: embeddings and low-level descriptors, float32 [B, D]
# of unit length, and reconstructions, float32 [B, 1, H, W] in [-1, 1]. A plain tuple, because
# GRAPH_MODE has no named ones.
Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
OUTPUTS = ("opt", "sar", "low_opt", "low_sar", "recon_opt", "recon_sar")


def split_pair(pairs_BHX: Tensor) -> tuple[Tensor, Tensor]:
    """Cut uint8 [B, 64, 128] into optical and SAR, each float32 [B, 1, 64, 64] in 0..255."""
    pairs = ops.cast(pairs_BHX, ms.float32).expand_dims(1)
    return pairs[:, :, :, :PATCH], pairs[:, :, :, PATCH:]


def normalise(x_B1HW: Tensor) -> Tensor:
    """Stretch each patch to [-1, 1] by its own minimum and maximum; a constant patch becomes -1."""
    low = x_B1HW.min(axis=(2, 3), keepdims=True)
    span = x_B1HW.max(axis=(2, 3), keepdims=True) - low
    # Grey values are whole numbers: a span below 1 is 0, and then x - low is 0 as well.
    return ((x_B1HW - low) / ops.maximum(span, Tensor(1.0, ms.float32)) - 0.5) / 0.5


def standardise(x_B1HW: Tensor) -> Tensor:
    """Subtract each patch's mean and divide by its population standard deviation + 1e-7."""
    centred = x_B1HW - x_B1HW.mean(axis=(2, 3), keep_dims=True)
    deviation = ops.sqrt((centred * centred).mean(axis=(2, 3), keep_dims=True))
    return centred / (deviation + 1e-7)


def unit_length(x_BD: Tensor) -> Tensor:
    """Divide each row by sqrt(its sum of squares + 1e-10); a zero row stays zero."""
    return x_BD / ops.sqrt((x_BD * x_BD).sum(axis=1, keepdims=True) + 1e-10)


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    padding = kernel // 2 if kernel == 3 else 0
    return nn.Conv2d(
        inputs, outputs, kernel, stride, pad_mode="pad", padding=padding, has_bias=False, weight_init="zeros"
    )


def _double(inputs: int, outputs: int) -> nn.Conv2dTranspose:
    return nn.Conv2dTranspose(
        inputs, outputs, 2, 2, pad_mode="valid", has_bias=True, weight_init="zeros", bias_init="zeros"
    )


class SDNet(nn.Cell):
    """The network, for training (batch statistics, dropout) or not (moving statistics, none).

    The mode is fixed when the network is made: a compiled graph never depends on a flag that is set later.
    Weights start at zero; set them with `weights.load`.
    """

    def __init__(self, recipe: Recipe, training: bool):
        super().__init__(auto_prefix=True)
        norms = Norms(recipe.normalisation, training)
        channels = 1 + recipe.orientation_channels

        def low_level() -> nn.SequentialCell:
            first, second = _conv(channels, 32), _conv(32, 32, stride=2)
            return nn.SequentialCell(first, norms.own(32), norms.activation(32), second, norms.own(32))

        self.features_opt = low_level()
        self.features_sar = low_level()
        dropout = ReplayedDropout(recipe.dropout if training else 0.0, recipe.seed, (128, 8, 8))
        self.embedding = nn.SequentialCell(
            *(norms.activation(32), _conv(32, 64, stride=2), norms.shared(64)),
            *(norms.activation(64), _conv(64, 64), norms.shared(64)),
            *(norms.activation(64), _conv(64, 128, stride=2), norms.shared(128)),
            *(norms.activation(128), _conv(128, 128), norms.shared(128)),
            *(norms.activation(128), dropout, _conv(128, 128, kernel=8), norms.last(128)),
        )
        self.as_product = recipe.objective != "published"
        self.by_modality = recipe.normalisation == "modality"
        self.orientations = recipe.orientation_channels
        if self.orientations:
            self.edges_opt = OrientationChannels(self.orientations, SIGMA_OPTICAL)
            self.edges_sar = OrientationChannels(self.orientations, SIGMA_SAR)
        if recipe.objective == "published":
            self._make_heads(norms)

    def _make_heads(self, norms: Norms) -> None:
        """The low-level descriptors and the decoder, which only the published losses use."""

        def low_descriptor() -> nn.SequentialCell:
            return nn.SequentialCell(_conv(32, 2, stride=2), norms.own(2), nn.AvgPool2d(2, 2))

        self.lower_opt = low_descriptor()
        self.lower_sar = low_descriptor()
        self.decoder = nn.SequentialCell(
            *(_double(2, 16), _conv(16, 16), norms.own(16), norms.activation(16)),
            *(_double(16, 16), _conv(16, 16), norms.own(16), norms.activation(16)),
            *(_double(16, 1), _conv(1, 1), norms.own(1), nn.Tanh()),
        )

    def construct(
        self, opt_B1HW: Tensor, sar_B1HW: Tensor, step: Tensor | int = 0, first: Tensor | int = 0
    ) -> Outputs:
        """Describe and reconstruct B normalised pairs; needs the heads of the published objective.

        step, first: position for dropout (`ReplayedDropout.construct`); used in training only.
        """
        features_opt = self.low_level_opt(opt_B1HW)
        features_sar = self.low_level_sar(sar_B1HW)
        low_opt = self.lower_opt(features_opt)
        low_sar = self.lower_sar(features_sar)
        return (
            self.embed(features_opt, step, first, 0),
            self.embed(features_sar, step, first, 1),
            unit_length(low_opt.reshape(low_opt.shape[0], -1)),
            unit_length(low_sar.reshape(low_sar.shape[0], -1)),
            self.decoder(low_opt),
            self.decoder(low_sar),
        )

    def describe(
        self, opt_B1HW: Tensor, sar_B1HW: Tensor, step: Tensor | int = 0, first: Tensor | int = 0
    ) -> tuple[Tensor, Tensor]:
        """Embeddings alone of B normalised pairs: optical and SAR, float32 [B, D] each."""
        return (
            self.embed(self.low_level_opt(opt_B1HW), step, first, 0),
            self.embed(self.low_level_sar(sar_B1HW), step, first, 1),
        )

    def low_level_opt(self, x_B1HW: Tensor) -> Tensor:
        """Low-level features of normalised optical patches, [B, 32, 32, 32]."""
        x = standardise(x_B1HW)
        if self.orientations:
            x = ops.concat((x, self.edges_opt(x)), axis=1)
        return self.features_opt(x)

    def low_level_sar(self, x_B1HW: Tensor) -> Tensor:
        """Low-level features of normalised SAR patches, [B, 32, 32, 32]."""
        x = standardise(x_B1HW)
        if self.orientations:
            x = ops.concat((x, self.edges_sar(x)), axis=1)
        return self.features_sar(x)

    def embed(self, features: Tensor, step: Tensor | int, first: Tensor | int, modality: int) -> Tensor:
        """Map low-level features float32 [B, 32, 32, 32] of one modality to [B, D], unit length."""
        for layer, cell in enumerate(self.embedding):
            if layer == DROPOUT_LAYER:
                features = cell(features, step, first, modality)
            elif self.as_product and layer == LAST_CONVOLUTION:
                features = self.last_as_product(features)
            elif self.by_modality and layer in NORM_LAYERS:
                features = cell(features, modality)
            else:
                features = cell(features)
        return unit_length(features.reshape(features.shape[0], -1))

    def last_as_product(self, features: Tensor) -> Tensor:
        """The 8 x 8 convolution of an 8 x 8 map, as the matrix product that it is: [B, D, 1, 1].

        oneDNN computes the gradient of that convolution image by image, which takes 40 % of a step. The
        published recipe keeps the convolution, so that its bytes do not change.
        """
        weight = self.embedding[LAST_CONVOLUTION].weight
        flat = features.reshape(features.shape[0], -1)
        product = ops.matmul(flat, weight.reshape(weight.shape[0], -1).T)
        return product.reshape(features.shape[0], -1, 1, 1)


class Embedder(nn.Cell):
    """Pairs as stored, uint8 [B, 64, 128], to optical and SAR embeddings, float32 [B, D] each."""

    def __init__(self, net: SDNet):
        super().__init__(auto_prefix=False)
        self.net = net

    def construct(self, pairs_BHX: Tensor) -> tuple[Tensor, Tensor]:
        opt, sar = split_pair(pairs_BHX)
        return self.net.describe(normalise(opt), normalise(sar))
