"""Distances of pairs, the same to the last bit however the work is spread.

Pairs are cut into chunks of `batch`, the last one filled up with copies of its last pair. A
chunk is always computed whole, as the same batch of the same graph, whichever rank does it.
"""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Self

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from sdnet import checkpoint, weights
from sdnet.augment import middle
from sdnet.config import Recipe
from sdnet.data.store import PatchFile
from sdnet.model import Embedder, SDNet
from sdnet.weights import State


class _AllGather(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.all_gather = ops.AllGather()

    def construct(self, share: Tensor) -> Tensor:
        return self.all_gather(share)


class Evaluation:
    """SDNet in evaluation mode, with weights of its own."""

    def __init__(self, recipe: Recipe | None = None):
        """recipe: of the weights, because it decides what the network is; left out, the published one."""
        self._net = SDNet(recipe or Recipe(), training=False)
        self.embedder = Embedder(self._net)

    @cached_property
    def all_gather(self) -> nn.Cell:
        """Gathers over all ranks; made when first asked for, since one rank has no group."""
        return _AllGather()

    def load(self, state: State) -> None:
        """Take weights."""
        weights.load(self._net, state)

    @classmethod
    def of_checkpoint(cls, path: Path) -> Self:
        """The network of a checkpoint directory, or of a `.ckpt` file of the published network.

        Raises InputError for what is not a checkpoint.
        """
        evaluation = cls(checkpoint.read_recipe(path))
        evaluation.load(checkpoint.read_model(path, weights.shapes(evaluation._net)))
        return evaluation

    def embed(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Optical and SAR embeddings, float32 [B, 128] each, of uint8 [B, E, 2E]; the middle 64 px count."""
        opt, sar = self.embedder(Tensor(middle(pairs)))
        return opt.asnumpy(), sar.asnumpy()

    def distances(self, patches: PatchFile, batch: int, chunks: Iterable[int]) -> np.ndarray:
        """Euclidean distances of the chunks' pairs, float64 [pairs in them], in the order of `chunks`.

        Computed in float64 from float32 embeddings, row by row, by NumPy on the host.
        """
        pieces = [np.empty(0)]
        for chunk in chunks:
            rows = np.arange(chunk * batch, (chunk + 1) * batch)
            opt, sar = self.embed(patches.images[np.minimum(rows, len(patches) - 1)])
            inside = int(np.count_nonzero(rows < len(patches)))
            difference = opt[:inside].astype(np.float64) - sar[:inside]
            pieces.append(np.sqrt(np.sum(difference * difference, axis=1)))
        return np.concatenate(pieces)


def num_chunks(num_pairs: int, batch: int) -> int:
    """Chunks of `batch` pairs that cover all, the last one perhaps filled up."""
    return -(-num_pairs // batch)


def chunks_of_rank(num_pairs: int, batch: int, rank: int, world_size: int) -> range:
    """The chunks that a rank computes: every world_size-th, so that shares differ by one at most."""
    return range(rank, num_chunks(num_pairs, batch), world_size)


def merge(shares: list[np.ndarray], num_pairs: int, batch: int) -> np.ndarray:
    """Put the shares of all ranks, in rank order, into the order of the file: float64 [num_pairs]."""
    merged = np.full(num_pairs, np.nan)
    for rank, share in enumerate(shares):
        chunks = chunks_of_rank(num_pairs, batch, rank, len(shares))
        rows = [np.arange(chunk * batch, min((chunk + 1) * batch, num_pairs)) for chunk in chunks]
        if rows:
            merged[np.concatenate(rows)] = share
    return merged


def gather(evaluation: Evaluation, patches: PatchFile, batch: int, rank: int, world_size: int) -> np.ndarray:
    """All distances on every rank of a group; each computes its share. Every rank must call it.

    Distances travel as pairs of int32, which no device rounds or lacks.
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
