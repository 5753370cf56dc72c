"""An objective over a global batch that is spread over slices and ranks.

A slice's gradient needs the descriptors of all other slices, as constants. So a step has two passes over the
network. The first computes the descriptors of every slice, and one AllReduce collects them. The second computes
the loss of the global batch on each slice, with gradients through its own descriptors only. The loss depends on
the weights only through the descriptors, so the gradients of the slices add up to that of one large batch. The
second pass repeats the forward computation: a step takes a third longer, but needs the memory of one slice
only.

Ranks exchange rows by an AllReduce, in which all rows except a rank's own are zero: MindSpore on CPU
has no gradient for AllGather, and none is needed here.

Shape letters: B batch of one slice, G global batch, D descriptor length (128).
"""

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from sdnet.config import Recipe
from sdnet.network.model import DESCRIPTOR, SDNet, normalise, split_pair
from sdnet.training.losses import global_terms


class GlobalObjective(nn.Cell):
    """The loss of the global batch, `contrastive` or `triplet`, as one slice sees it.

    gathered: [G, 2D], optical and SAR descriptors of every slice; unused with one slice.
    """

    def __init__(self, net: SDNet, recipe: Recipe, slice_size: int, slices: int):
        super().__init__(auto_prefix=False)
        self.net = net
        self.recipe = recipe
        self.batch, self.slices = slice_size, slices
        rows = slice_size * slices
        self.row_G1 = Tensor(np.arange(rows, dtype=np.int32)[:, None])
        self.gathered = _rows("gathered", rows if slices > 1 else 1)

    def construct(self, pairs_BHX: Tensor, step: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """As `train_step.Objective`: returns the loss for the gradient, and the reported losses.

        The first is multiplied by the number of slices, because an update averages the slices' gradients, but
        the global batch needs their sum.
        """
        all_GD = self.describe(pairs_BHX, step, first)
        if self.slices > 1:
            others_G1 = 1.0 - self.is_own(first)
            all_GD = self.place(all_GD, first) + ops.stop_gradient(self.gathered) * others_G1
        terms = global_terms(all_GD[:, :DESCRIPTOR], all_GD[:, DESCRIPTOR:], self.recipe)
        return terms[-1] * self.slices, ops.stack(terms)

    def describe(self, pairs_BHX: Tensor, step: Tensor, first: Tensor) -> Tensor:
        """Optical and SAR descriptors of uint8 [B, 64, 128] side by side: [B, 2D]."""
        opt, sar = split_pair(pairs_BHX)
        return ops.concat(self.net.describe(normalise(opt), normalise(sar), step, first), axis=1)

    def place(self, own_BD: Tensor, first: Tensor) -> Tensor:
        """Put a slice's rows at their position in the global batch: [G, 2D], other rows 0."""
        return ops.tile(own_BD, (self.slices, 1)) * self.is_own(first)

    def is_own(self, first: Tensor) -> Tensor:
        """1 for the rows of the slice whose first row is `first`, else 0: float32 [G, 1]."""
        after = self.row_G1 - first
        return ops.cast(ops.logical_and(after >= 0, after < self.batch), ms.float32)


class _Describe(nn.Cell):
    """Adds a slice's descriptors to this rank's rows."""

    def __init__(self, objective: GlobalObjective, own: Parameter):
        super().__init__(auto_prefix=False)
        self.objective, self.own = objective, own

    def construct(self, pairs_BHX: Tensor, step: Tensor, first: Tensor) -> Tensor:
        placed = self.objective.place(self.objective.describe(pairs_BHX, step, first), first)
        return ops.assign_add(self.own, placed)


class _Collect(nn.Cell):
    """Sums the rows of all ranks, and sets this rank's to 0 for the next step."""

    def __init__(self, objective: GlobalObjective, own: Parameter, world_size: int):
        super().__init__(auto_prefix=False)
        self.gathered, self.own = objective.gathered, own
        self.nothing = Tensor(np.zeros(own.shape, np.float32))
        self.all_reduce = ops.AllReduce() if world_size > 1 else None

    def construct(self) -> Tensor:
        rows = self.own
        if self.all_reduce is not None:
            rows = self.all_reduce(rows)
        ops.assign(self.gathered, rows)
        ops.assign(self.own, self.nothing)
        return self.gathered


class Gather:
    """The first pass of a step of several slices."""

    def __init__(self, objective: GlobalObjective, world_size: int):
        own = _rows("own_descriptors", objective.gathered.shape[0])
        self.describe = _Describe(objective, own)
        self.collect = _Collect(objective, own, world_size)


def _rows(name: str, rows: int) -> Parameter:
    return Parameter(Tensor(np.zeros((rows, 2 * DESCRIPTOR), np.float32)), name=name, requires_grad=False)
