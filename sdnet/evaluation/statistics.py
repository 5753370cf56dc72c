"""Measures BatchNorm statistics on the given images, to replace those of a checkpoint.

Images of another season or sensor have other means and variances in every layer, and with the old statistics a
network describes them badly. The images themselves give the right statistics, without labels. Each sensor gets
its own, also in a network that was trained with one set for both.
"""

from dataclasses import dataclass, replace

import numpy as np
from mindspore import Tensor, nn

from sdnet.config import FEWEST_FOR_STATISTICS, Recipe
from sdnet.data.augment import middle
from sdnet.data.store import PatchFile
from sdnet.errors import InputError
from sdnet.network.model import PATCH, SDNet, normalise
from sdnet.parameters import weights
from sdnet.parameters.weights import State

FEWEST = FEWEST_FOR_STATISTICS
MOST = 2000  # patches that are used
_CHUNK = 200
_MEAN, _VARIANCE = "moving_mean", "moving_variance"
_PARTS = (("features_opt.", ".opt."), ("features_sar.", ".sar."))  # of the names of each sensor's statistics


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of a network, and the recipe that says which network it is."""

    recipe: Recipe
    state: State

    def by_sensor(self) -> "Weights":
        """The same network with statistics for each sensor, which start equal if it had one set for both.

        Raises InputError for a network without statistics.
        """
        kind = self.recipe.normalisation
        if kind not in ("batch", "modality"):
            raise InputError(
                f"the network was trained with normalisation {kind}, so it has no statistics to replace; "
                "leave --adapt out"
            )
        recipe = replace(self.recipe, normalisation="modality")
        names = weights.shapes(SDNet(recipe, training=False))
        shared = {name: name.replace(".opt.", ".").replace(".sar.", ".") for name in names}
        state = {name: self.state.get(name, self.state.get(shared[name])) for name in names}
        return Weights(recipe, {name: value for name, value in state.items() if value is not None})


class _Side(nn.Cell):
    """One sensor's half of a network in training mode; running it updates the statistics."""

    def __init__(self, net: SDNet, sensor: int):
        super().__init__(auto_prefix=False)
        self.net, self.sensor = net, sensor
        self.low_level = net.low_level_opt if sensor == 0 else net.low_level_sar

    def construct(self, patches_B1HW: Tensor) -> Tensor:
        return self.net.embed(self.low_level(normalise(patches_B1HW)), 0, 0, self.sensor)


class StatisticsOf:
    """Measures the statistics of patches with fixed weights; can be used for several sets of patches."""

    def __init__(self, given: Weights):
        """Raises InputError for a network without statistics."""
        made = given.by_sensor()
        self._net = SDNet(replace(made.recipe, dropout=0.0), training=True)
        weights.load(self._net, made.state)
        self._sides = [_Side(self._net, sensor) for sensor in range(2)]

    def measure(self, optical: np.ndarray, sar: np.ndarray) -> State:
        """The statistics by name: `moving_mean` and `moving_variance` of every layer of the descriptors.

        optical, sar: uint8 [N, 64, 64], at least `FEWEST` of each; the two need not show the same ground. At
        most `MOST` are used, evenly spread.
        Raises InputError for too few.
        """
        found: State = {}
        for sensor, patches in enumerate((optical, sar)):
            if len(patches) < FEWEST:
                raise InputError(
                    f"there are {len(patches)} patches, too few to take statistics from; "
                    f"give at least {FEWEST}, or leave --adapt out"
                )
            found |= self._of_sensor(sensor, patches)
        return found

    def _of_sensor(self, sensor: int, patches: np.ndarray) -> State:
        """Mean and variance over all chunks; each chunk is normalised by its own statistics, as in training."""
        size = min(_CHUNK, len(patches))
        rows = np.linspace(0, len(patches) - 1, min(len(patches), MOST) // size * size).astype(np.int64)
        moving = {
            name: parameter
            for name, parameter in self._net.parameters_dict().items()
            if name.endswith((_MEAN, _VARIANCE)) and any(part in name for part in _PARTS[sensor])
        }
        chunks = []
        for chunk in rows.reshape(-1, size):
            for parameter in moving.values():
                parameter.set_data(Tensor(np.zeros(parameter.shape, np.float32)))
            grey = np.float32(patches[chunk]).reshape(size, 1, PATCH, PATCH)
            self._sides[sensor](Tensor(grey)).asnumpy()
            # From 0, a step of BatchNorm leaves a tenth of the chunk's statistics.
            chunks.append({name: 10.0 * value.asnumpy().astype(np.float64) for name, value in moving.items()})
        return _merged(chunks)


def of_pairs(given: Weights, patches: PatchFile) -> State:
    """The statistics of at most `MOST` pairs of a file, evenly spread; labels are not used.

    Raises InputError for too few patches, and for a network without statistics.
    """
    rows = np.linspace(0, len(patches) - 1, min(len(patches), MOST)).astype(np.int64)
    pairs = middle(np.asarray(patches.images[rows]))
    return StatisticsOf(given).measure(pairs[:, :, :PATCH], pairs[:, :, PATCH:])


def _merged(chunks: list[State]) -> State:
    """Combine the statistics of chunks of equal size."""
    found: State = {}
    for name in chunks[0]:
        if name.endswith(_MEAN):
            means = np.stack([chunk[name] for chunk in chunks])
            variance = name.removesuffix(_MEAN) + _VARIANCE
            within = np.mean([chunk[variance] for chunk in chunks], axis=0)
            found[name] = means.mean(axis=0).astype(np.float32)
            found[variance] = (within + means.var(axis=0)).astype(np.float32)
    return found


def adapted(given: Weights, statistics: State) -> Weights:
    """Weights with other statistics. Raises InputError for a network without statistics."""
    made = given.by_sensor()
    return Weights(made.recipe, {**made.state, **statistics})
