"""One training step of SDNet: gradients of slices, then one update from their mean.

A global batch is `slices` slices of `slice_size` pairs each; BatchNorm and the negatives of
the match loss see one slice at a time. A rank computes one slice or, when ranks were lost,
several, one after another: the compiled graphs and the objective stay the same, whatever the
number of ranks.

Everything that slices share travels in one flat float32 buffer, in this order:
gradients | BatchNorm moving statistics | loss terms and their total.

An objective of the global batch needs the descriptors of the whole global batch before any
gradient: `gather.Gather` collects them first.
"""

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from sdnet.config import Recipe
from sdnet.network.model import SDNet, normalise, split_pair
from sdnet.network.quiet import quiet_mindspore
from sdnet.parameters import weights
from sdnet.parameters.weights import State
from sdnet.training import losses
from sdnet.training.gather import Gather, GlobalObjective

LOSSES = (*losses.TERMS, "total")
_STATISTICS = ("moving_mean", "moving_variance")
_TRAINED = "trained."  # before the names of weights that are not those of the checkpoint


class Objective(nn.Cell):
    """The weighted total loss of one slice, for the gradient, and all of `LOSSES` beside it."""

    def __init__(self, net: SDNet, recipe: Recipe):
        super().__init__(auto_prefix=False)
        self.net = net
        self.recipe = recipe
        self.weights = losses.weights(recipe)

    def construct(self, pairs_BHX: Tensor, step: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """Losses of uint8 [B, 64, 128]: total, a scalar, and float32 [len(LOSSES)]."""
        opt, sar = split_pair(pairs_BHX)
        opt, sar = normalise(opt), normalise(sar)
        terms = losses.terms(self.net(opt, sar, step, first), opt, sar, self.recipe)
        total = 0.0
        for index, term in enumerate(terms):
            total = total + self.weights[index] * term
        return total, ops.stack((*terms, total))


class SliceGradients(nn.Cell):
    """Gradients and losses of one slice, flat; running it also moves the BatchNorm statistics.

    Flat, because GRAPH_MODE treats the tensors of a tuple as constants of the next graph and
    compiles that graph again at each call.
    """

    def __init__(self, objective: Objective | GlobalObjective):
        super().__init__(auto_prefix=False)
        trained = ms.ParameterTuple(objective.net.trainable_params())
        # A cached graph restores only parameters registered on its Cell, so this Cell owns them.
        self.objective = objective
        self.gradient = ops.value_and_grad(objective, None, trained, has_aux=True)

    def construct(self, pairs_BHX: Tensor, step: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """All gradients in one vector, and the losses. step, first: see `ReplayedDropout.construct`."""
        (_, slice_losses), gradients = self.gradient(pairs_BHX, step, first)
        return ops.concat([gradient.reshape(-1) for gradient in gradients]), slice_losses


def _buffer(name: str, size: int) -> Parameter:
    return Parameter(Tensor(np.zeros(size, np.float32)), name=name, requires_grad=False)


def _named_copy(name: str, parameter: Parameter) -> Parameter:
    copy = parameter.clone()
    copy.name = name
    return copy


class Accumulate(nn.Cell):
    """Adds one slice to the shared buffer and takes BatchNorm statistics back to the step's start.

    Every slice of a step moves them from the same start, wherever it is computed.
    """

    def __init__(self, net: SDNet, num_losses: int):
        super().__init__(auto_prefix=False)
        moving = [p for p in net.get_parameters() if p.name.endswith(_STATISTICS)]
        self.moving = ms.ParameterTuple(moving)
        self.start = ms.ParameterTuple([_named_copy(f"start.{p.name}", p) for p in moving])
        num_trained = sum(p.size for p in net.trainable_params())
        self.shared = _buffer("shared", num_trained + sum(p.size for p in moving) + num_losses)

    def construct(self, gradients: Tensor, slice_losses: Tensor) -> Tensor:
        """Takes what `SliceGradients` gives; returns the losses."""
        statistics = [statistic.reshape(-1) for statistic in self.moving]
        ops.assign_add(self.shared, ops.concat((gradients, *statistics, slice_losses)))
        for index, start in enumerate(self.start):
            ops.assign(self.moving[index], start)
        return slice_losses


class Average(nn.Cell):
    """Moving averages of weights and statistics, which a checkpoint holds instead of the newest ones.

    In step s, counted from 0, the average so far counts min(most, s / (s + 9)): the first step takes the
    weights themselves, so the average does not depend on the weights before training.
    """

    def __init__(self, net: SDNet, most: float):
        super().__init__(auto_prefix=False)
        kept = [p for p in net.get_parameters() if p.requires_grad or p.name.endswith(_STATISTICS)]
        self.current = ms.ParameterTuple(kept)
        self.averages = ms.ParameterTuple([_named_copy(f"average.{p.name}", p) for p in kept])
        self.most = most

    def construct(self, step: Tensor) -> Tensor:
        done = ops.cast(step, ms.float32)
        newest = 1.0 - ops.minimum(Tensor(self.most, ms.float32), done / (done + 9.0))
        for index, average in enumerate(self.averages):
            # Exact in the first step: ranks may have drawn weights that differ in a last bit.
            ops.assign(average, (1.0 - newest) * average + newest * self.current[index])
        return newest

    def state(self) -> State:
        """Copy the averages to the host, by the names of the network's parameters."""
        pairs = zip(self.current, self.averages, strict=True)
        return {parameter.name: average.asnumpy().copy() for parameter, average in pairs}

    def load(self, state: State) -> None:
        """Continue from what `state` returned; more names are ignored."""
        for parameter, average in zip(self.current, self.averages, strict=True):
            average.set_data(Tensor(state[parameter.name]))


class Update(nn.Cell):
    """Averages the shared buffer over all slices of all ranks, then steps Adam.

    losses: float32, one for each name of `loss_names`, summed over the steps since it was last set to 0.
    bad_step: int32, the first step whose total loss was not finite, or -1.
    """

    def __init__(self, net: SDNet, recipe: Recipe, accumulate: Accumulate, slices: int, world_size: int):
        super().__init__(auto_prefix=False)
        self.trained = ms.ParameterTuple(net.trainable_params())
        self.moving, self.start, self.shared = accumulate.moving, accumulate.start, accumulate.shared
        with quiet_mindspore():  # it warns of a kernel of its own that Adam does not use
            self.adam = nn.Adam(
                net.trainable_params(),
                recipe.lr,
                recipe.beta1,
                recipe.beta2,
                weight_decay=recipe.weight_decay,
            )
        self.num_losses = len(losses.loss_names(recipe))
        self.losses = _buffer("losses", self.num_losses)
        self.bad_step = Parameter(Tensor(np.int32(-1)), name="bad_step", requires_grad=False)
        self.nothing = Tensor(np.zeros(self.shared.shape, np.float32))
        self.slices = float(slices)
        self.all_reduce = ops.AllReduce() if world_size > 1 else None
        self.average = Average(net, recipe.average) if recipe.average else None

    def construct(self, step: Tensor, learning_rate: Tensor) -> Tensor:
        """Apply one step; int32 and float32 scalars. Returns its mean total loss."""
        shared = self.shared
        if self.all_reduce is not None:
            shared = self.all_reduce(shared)
        mean = shared / self.slices
        gradients = []
        at = 0
        for parameter in self.trained:
            gradients.append(mean[at : at + parameter.size].reshape(parameter.shape))
            at += parameter.size
        for index, start in enumerate(self.start):
            statistic = mean[at : at + start.size].reshape(start.shape)
            ops.assign(self.moving[index], statistic)
            ops.assign(start, statistic)
            at += start.size
        ops.assign(self.adam.learning_rate, learning_rate)
        self.adam(tuple(gradients))
        if self.average is not None:
            self.average(step)
        ops.assign(self.shared, self.nothing)
        ops.assign_add(self.losses, mean[at:])
        total = mean[at + self.num_losses - 1]
        is_first = ops.logical_and(self.bad_step < 0, ops.logical_not(ops.isfinite(total)))
        ops.assign(self.bad_step, ops.select(is_first, step, self.bad_step))
        return total


class TrainStep:
    """A network under training and the three graphs that train it; `net` holds the weights."""

    def __init__(self, net: SDNet, recipe: Recipe, slice_size: int, slices: int, world_size: int):
        self.batch = slice_size
        self.net = net
        self.loss_names = losses.loss_names(recipe)
        self._gather: Gather | None = None
        objective: Objective | GlobalObjective
        if recipe.objective != "published":
            objective = GlobalObjective(net, recipe, slice_size, slices)
            if slices > 1:
                self._gather = Gather(objective, world_size)
        else:
            objective = Objective(net, recipe)
        self.gradients = SliceGradients(objective)
        self.accumulate = Accumulate(self.net, len(self.loss_names))
        self.update = Update(self.net, recipe, self.accumulate, slices, world_size)

    @property
    def needs_gather(self) -> bool:
        """Whether the ranks must call `gather` before `add_slice`."""
        return self._gather is not None

    def gather(self, pairs: dict[int, np.ndarray], step: int) -> None:
        """Describe this rank's slices, by their numbers, and collect the descriptors of all ranks.

        Every rank calls it once a step, and later gives `add_slice` the same pairs.
        """
        assert self._gather is not None
        for slice_, slice_pairs in pairs.items():
            first = Tensor(np.int32(slice_ * self.batch))
            self._gather.describe(Tensor(slice_pairs), Tensor(np.int32(step)), first)
            self.reset_moving()
        self._gather.collect()

    def add_slice(self, pairs: np.ndarray, step: int, slice_: int) -> Tensor:
        """Compute one slice, uint8 [batch, 64, 128], number `slice_` of the global batch of `step`.

        Returns its losses, in the order of `loss_names`, which may still be under way on the device.
        """
        first = Tensor(np.int32(slice_ * self.batch))
        return self.accumulate(*self.gradients(Tensor(pairs), Tensor(np.int32(step)), first))

    def apply(self, step: int, learning_rate: float) -> None:
        """Update the weights from the slices added on all ranks; every rank calls it once a step."""
        self.update(Tensor(np.int32(step)), Tensor(np.float32(learning_rate)))

    def reset_statistics(self) -> None:
        """Start the next step from the BatchNorm statistics that `net` has now; after loading weights."""
        for start, parameter in zip(self.accumulate.start, self.accumulate.moving, strict=True):
            start.set_data(Tensor(parameter.asnumpy().copy()))

    def reset_moving(self) -> None:
        """Take the BatchNorm statistics back to where the step began."""
        for start, parameter in zip(self.accumulate.start, self.accumulate.moving, strict=True):
            parameter.set_data(Tensor(start.asnumpy().copy()))

    def losses(self) -> np.ndarray:
        """Sums of `loss_names` since `set_losses`, float32, each step's value the mean over all slices."""
        return self.update.losses.asnumpy().copy()

    def set_losses(self, sums: np.ndarray) -> None:
        """Continue the sums of losses from here."""
        self.update.losses.set_data(Tensor(sums))

    def first_bad_step(self) -> int | None:
        """The first step whose total loss was not finite; waits for the device."""
        step = int(self.update.bad_step.asnumpy())
        return None if step < 0 else step

    def forget_bad_step(self) -> None:
        """Watch for a loss that is not finite from here on; after loading weights."""
        self.update.bad_step.set_data(Tensor(np.int32(-1)))

    def model(self) -> State:
        """Copy the weights of a checkpoint to the host: the network's, or their average if the recipe has one."""
        average = self.update.average
        return weights.copy(self.net) | ({} if average is None else average.state())

    def optimizer_state(self) -> State:
        """Copy the rest that training needs: Adam's own parameters, and weights that `model` does not have."""
        state = {name: parameter.asnumpy().copy() for name, parameter in self._optimizer_parameters().items()}
        if self.update.average is not None:
            state |= {_TRAINED + name: value for name, value in weights.copy(self.net).items()}
        return state

    def resume(self, model: State, optimizer: State) -> None:
        """Continue from what `model` and `optimizer_state` returned."""
        trained = {name: value for name, value in optimizer.items() if name.startswith(_TRAINED)}
        if self.update.average is not None:
            self.update.average.load(model)
            model = {name.removeprefix(_TRAINED): value for name, value in trained.items()}
        weights.load(self.net, model)
        self.set_optimizer_state({name: optimizer[name] for name in optimizer.keys() - trained.keys()})
        self.reset_statistics()

    def set_optimizer_state(self, state: State) -> None:
        """Give Adam its own parameters back."""
        parameters = self._optimizer_parameters()
        assert parameters.keys() == state.keys(), parameters.keys() ^ state.keys()
        for name, parameter in parameters.items():
            parameter.set_data(Tensor(state[name]))

    def _optimizer_parameters(self) -> dict[str, Parameter]:
        own = self.net.parameters_dict().keys()
        return {name: p for name, p in self.update.adam.parameters_dict().items() if name not in own}
