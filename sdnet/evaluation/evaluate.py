"""Computes distances of pairs, with the same bits for any number of ranks.

Pairs are cut into chunks of `batch`; the last one is padded with copies of its last pair. A rank always
computes a whole chunk, as the same batch of the same graph.
"""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Self

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from sdnet.config import Recipe
from sdnet.data.augment import middle
from sdnet.data.places import Places
from sdnet.data.store import PatchFile
from sdnet.errors import InputError
from sdnet.evaluation.assessment import distances_of
from sdnet.evaluation.metrics import best_threshold
from sdnet.evaluation.statistics import Weights, adapted, of_pairs
from sdnet.network.model import DESCRIPTOR, Embedder, SDNet
from sdnet.parameters import checkpoint, weights
from sdnet.parameters.published import LoadedModel
from sdnet.parameters.weights import State
from sdnet.preparation.prepare import draw_negatives

_FOR_THRESHOLD = 2000  # most training matches that are used


class _AllGather(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.all_gather = ops.AllGather()

    def construct(self, share: Tensor) -> Tensor:
        return self.all_gather(share)


class Evaluation:
    """SDNet in evaluation mode, with weights of its own."""

    def __init__(self, recipe: Recipe | None = None):
        """recipe: of the weights, because it defines the network; None for the published one."""
        self._recipe = recipe or Recipe()
        self._net = SDNet(self._recipe, training=False)
        self.embedder = Embedder(self._net)

    @cached_property
    def all_gather(self) -> nn.Cell:
        """AllGather over all ranks; created on first use, because a single rank has no group."""
        return _AllGather()

    def load(self, state: State) -> None:
        """Load weights into the network."""
        weights.load(self._net, state)

    @classmethod
    def of_checkpoint(cls, path: Path) -> tuple[Self, LoadedModel]:
        """The network of a checkpoint directory or `.ckpt` file, and where its weights come from.

        A single file holds the published network. Raises InputError for what is not a checkpoint.
        """
        evaluation = cls(checkpoint.read_recipe(path))
        loaded = checkpoint.load_model(path, weights.shapes(evaluation._net))
        evaluation.load(loaded.state)
        return evaluation, loaded

    def statistics_of(self, patches: PatchFile) -> State:
        """Measure BatchNorm statistics on these patches with this network's weights; labels are not used.

        Raises InputError for too few patches, and for a network without statistics.
        """
        return of_pairs(self._weights(), patches)

    def with_statistics(self, statistics: State) -> "Evaluation":
        """The same network with other statistics, as `statistics_of` gives them."""
        made = adapted(self._weights(), statistics)
        evaluation = Evaluation(made.recipe)
        evaluation.load(made.state)
        return evaluation

    def _weights(self) -> Weights:
        return Weights(self._recipe, weights.copy(self._net))

    def embed(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Optical and SAR embeddings, float32 [B, 128] each, of uint8 [B, E, 2E]; the middle 64 px count."""
        opt, sar = self.embedder(Tensor(middle(pairs)))
        return opt.asnumpy(), sar.asnumpy()

    def descriptors(
        self, patches: PatchFile, batch: int, chunks: Iterable[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Optical and SAR embeddings of the chunks' pairs, float32 [pairs in them, 128], in their order."""
        pieces = [(np.empty((0, DESCRIPTOR), np.float32),) * 2]
        for chunk in chunks:
            rows = np.arange(chunk * batch, (chunk + 1) * batch)
            inside = int(np.count_nonzero(rows < len(patches)))
            opt, sar = self.embed(patches.images[np.minimum(rows, len(patches) - 1)])
            pieces.append((opt[:inside], sar[:inside]))
        opt, sar = (np.concatenate(side) for side in zip(*pieces, strict=True))
        return opt, sar

    def distances(self, patches: PatchFile, batch: int, chunks: Iterable[int]) -> np.ndarray:
        """Euclidean distances of the chunks' pairs, float64 [pairs in them], in the order of `chunks`.

        Computed in float64 from float32 embeddings, row by row, by NumPy on the host.
        """
        return distances_of(*self.descriptors(patches, batch, chunks))


def training_threshold(evaluation: Evaluation, train: PatchFile, places: Places, batch: int) -> float:
    """The distance that best separates matches of the training set from non-matches of other scenes.

    Uses at most `_FOR_THRESHOLD` matches, evenly spread over the file, and as many non-matches.
    Raises InputError when all belong to one scene.
    """
    rows = np.linspace(0, len(train) - 1, min(len(train), _FOR_THRESHOLD)).astype(np.int64)
    images, scenes = middle(np.asarray(train.images[rows])), places.scene[rows]
    if scenes.min() == scenes.max():
        raise InputError(f"{train.path} has one scene only; non-matches come from another, so add scenes")
    sample = PatchFile(train.path, images, np.ones(len(rows), np.int32))
    opt, sar = evaluation.descriptors(sample, batch, range(num_chunks(len(rows), batch)))
    from_optical, from_sar = draw_negatives(scenes, 1.0, seed=0)
    distances = np.concatenate([distances_of(opt, sar), distances_of(opt[from_optical], sar[from_sar])])
    return best_threshold(distances, np.repeat([1, 0], [len(rows), len(from_optical)]))


def num_chunks(num_pairs: int, batch: int) -> int:
    """The number of chunks of `batch` pairs that cover all pairs."""
    return -(-num_pairs // batch)


def chunks_of_rank(num_pairs: int, batch: int, rank: int, world_size: int) -> range:
    """The chunks that a rank computes: every world_size-th, so that shares differ by one at most."""
    return range(rank, num_chunks(num_pairs, batch), world_size)


def merge(shares: list[np.ndarray], num_pairs: int, batch: int) -> np.ndarray:
    """Put the shares of all ranks, in rank order, into the order of the file: [num_pairs, ...]."""
    merged = np.full((num_pairs, *shares[0].shape[1:]), np.nan, shares[0].dtype)
    for rank, share in enumerate(shares):
        chunks = chunks_of_rank(num_pairs, batch, rank, len(shares))
        rows = [np.arange(chunk * batch, min((chunk + 1) * batch, num_pairs)) for chunk in chunks]
        if rows:
            merged[np.concatenate(rows)] = share
    return merged


def gather(evaluation: Evaluation, patches: PatchFile, batch: int, rank: int, world_size: int) -> np.ndarray:
    """All distances, on every rank of a group; each computes its share. Collective: every rank must call it.

    Distances are sent as pairs of int32, which every device has and none rounds.
    """
    share = evaluation.distances(patches, batch, chunks_of_rank(len(patches), batch, rank, world_size))
    if world_size == 1:
        return merge([share], len(patches), batch)
    room = -(-num_chunks(len(patches), batch) // world_size) * batch
    padded = np.zeros(room)
    padded[: share.size] = share
    gathered = evaluation.all_gather(Tensor(padded.view(np.int32), ms.int32)).asnumpy()
    rows = gathered.view(np.float64).reshape(world_size, room)
    sizes = [
        sum(
            min(batch, len(patches) - chunk * batch)
            for chunk in chunks_of_rank(len(patches), batch, r, world_size)
        )
        for r in range(world_size)
    ]
    return merge([row[:size] for row, size in zip(rows, sizes, strict=True)], len(patches), batch)
