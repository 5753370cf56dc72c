"""SDNet for registration: descriptors of single points, and dense descriptors of whole chips."""

import copy
import threading
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Self

import cv2
import numpy as np
from mindspore import Tensor, nn, ops
from numpy.typing import ArrayLike

from sdnet.errors import InputError, shown
from sdnet.evaluation.statistics import StatisticsOf, Weights, adapted
from sdnet.network.model import DROPOUT_LAYER, NORM_LAYERS, PATCH, SDNet, normalise
from sdnet.parameters import checkpoint, weights
from sdnet.registration.config import SENSORS, Sensor
from sdnet.registration.images import Image
from sdnet.registration.tie_points import points_from

STRIDE = 8  # pixels between neighbours of a dense map
_BATCH = 64
_PATCHES_ALONG_EDGE = 20  # for BatchNorm statistics
# MindSpore crashes when two threads build or run graphs at the same time.
_COMPUTING = threading.RLock()


class _Side(nn.Cell):
    """One sensor's half of the network.

    Shape letters: B batch, H rows, W columns.
    """

    def __init__(self, net: SDNet, sensor: Sensor):
        super().__init__(auto_prefix=False)
        self.net = net
        self.modality = SENSORS.index(sensor)
        self.low_level = net.low_level_opt if self.modality == 0 else net.low_level_sar

    def construct(self, grey_B1HW: Tensor) -> Tensor:
        """Descriptors of unit length, [B, 128, H / 8 - 7, W / 8 - 7]; one for a patch of 64 x 64 px."""
        maps = self.low_level(grey_B1HW)
        for layer, cell in enumerate(self.net.embedding):
            if self.net.by_modality and layer in NORM_LAYERS:
                maps = cell(maps, self.modality)
            elif layer != DROPOUT_LAYER:  # drops nothing outside training
                maps = cell(maps)
        return maps / ops.sqrt((maps * maps).sum(axis=1, keepdims=True) + 1e-10)


class Network:
    """A trained SDNet. Threads may share it; they compute one after another.

    origin: `checkpoint_sha256` and `weights_sha256`, as of `LoadedModel`. note: as of `LoadedModel`.
    """

    def __init__(self, given: Weights, origin: Mapping[str, str], note: str = ""):
        self._given, self.origin, self.note = given, dict(origin), note
        self._net = SDNet(given.recipe, training=False)
        weights.load(self._net, given.state)
        self._sides = {sensor: _Side(self._net, sensor) for sensor in SENSORS}
        self._state, self._loaded = given.state, [given.state]

    @classmethod
    def of_checkpoint(cls, path: Path) -> Self:
        """Read a checkpoint directory or a `.ckpt` file, published ones too. Raises InputError."""
        recipe = checkpoint.read_recipe(path)
        with _COMPUTING:
            loaded = checkpoint.load_model(path, weights.shapes(SDNet(recipe, training=False)))
            return cls(Weights(recipe, loaded.state), loaded.origin, loaded.note)

    def adapted(self, optical: Image, sar: Image) -> "Network":
        """This network with the BatchNorm statistics of two images.

        Raises InputError for a network without statistics.
        """
        with _COMPUTING:
            measure, twin = self._twin
            found = measure.measure(patches_of(optical), patches_of(sar))
        made = copy.copy(twin)  # all share the compiled graphs
        made._state = adapted(self._given, found).state
        return made

    @cached_property
    def _twin(self) -> "tuple[StatisticsOf, Network]":
        """Measures statistics, and the network that gets them; cached, because compiling takes seconds."""
        return StatisticsOf(self._given), Network(self._given.by_sensor(), self.origin)

    def describe(self, patches: np.ndarray, sensor: Sensor) -> np.ndarray:
        """Descriptors of unit length, float32 [N, 128], of patches uint8 [N, 64, 64]."""
        found = [np.empty((0, 128), np.float32)]
        for first in range(0, len(patches), _BATCH):
            batch = patches[first : first + _BATCH]
            # A fixed shape: the graph is compiled once, and a result does not depend on N.
            full = np.zeros((_BATCH, 1, PATCH, PATCH), np.float32)
            full[: len(batch), 0] = batch
            found.append(self._compute(full, sensor, normalised=False)[: len(batch), :, 0, 0])
        return np.concatenate(found)

    def dense(self, grey: np.ndarray, sensor: Sensor) -> np.ndarray:
        """Descriptors of every 8th patch: float32 [128, H / 8 - 7, W / 8 - 7] of grey [H, W].

        Entry (i, j) is of the 64 x 64 px patch whose first pixel is (8 i, 8 j). Two things differ from single
        patches. Grey is standardised by the mean and deviation of the 64 px around each pixel, not of the
        patch. A convolution sees the surroundings of a patch instead of zeros. H and W are multiples of 8.
        """
        grey = grey.astype(np.float32)
        mean = cv2.blur(grey, (PATCH, PATCH), borderType=cv2.BORDER_REFLECT)
        square = cv2.blur(grey * grey, (PATCH, PATCH), borderType=cv2.BORDER_REFLECT)
        even = (grey - mean) / np.sqrt(np.maximum(square - mean * mean, 1.0))
        return self._compute(even[None, None], sensor, normalised=True)[0]

    def _compute(self, grey: np.ndarray, sensor: Sensor, *, normalised: bool) -> np.ndarray:
        """Descriptors of float32 [B, 1, H, W] with the weights of this network; see `_Side`."""
        with _COMPUTING:
            if self._loaded[0] is not self._state:
                weights.load(self._net, self._state)
                self._loaded[0] = self._state
            tensor = Tensor(grey)
            found: np.ndarray = self._sides[sensor](tensor if normalised else normalise(tensor)).asnumpy()
            return found


def patches_of(image: Image) -> np.ndarray:
    """Patches evenly spread over the parts of an image that have data: uint8 [N, 64, 64]."""
    rows, columns = (
        np.linspace(0, edge - PATCH, _PATCHES_ALONG_EDGE).round().astype(int) for edge in image.shape
    )
    places = [(slice(row, row + PATCH), slice(column, column + PATCH)) for row in rows for column in columns]
    full = [place for place in places if image.valid[place].all()]
    return np.stack([image.grey[place] for place in full or places])


def describe_points(net: Network, image: Image, points: ArrayLike, sensor: Sensor) -> np.ndarray:
    """Descriptors of unit length, float32 [N, 128], of the 64 x 64 px around points of one image.

    points: [N, 2], (row, column), rounded to whole pixels; the patch begins 32 px above and left of it.
    Raises InputError for another shape, and for a point whose patch is not inside the image.
    """
    if sensor not in SENSORS:
        raise InputError(f"sensor is {shown(sensor)}; it must be optical or sar")
    half = PATCH // 2
    corners = np.rint(points_from(points)).astype(int) - half
    outside = ((corners < 0) | (corners + PATCH > image.shape)).any(axis=1)
    if outside.any():
        row, column = corners[outside][0] + half
        raise InputError(
            f"point ({row}, {column}) is nearer than {half} px to the rim of {image.name}; leave it out"
        )
    patches = [image.grey[row : row + PATCH, column : column + PATCH] for row, column in corners]
    return net.describe(np.stack(patches) if patches else np.empty((0, PATCH, PATCH), np.uint8), sensor)
