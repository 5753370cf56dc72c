"""SDNet's parameters as NumPy arrays: initial values, loading into a network and copying from it.

A state is a dict from our flat parameter name (`embedding.14.weight`) to a float32 array.
"""

import math

import mindspore as ms
import numpy as np
from mindspore import nn, ops

GAIN = 0.6  # of the orthogonal initialisation, from the published recipe

State = dict[str, np.ndarray]


def orthogonal(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Weights [out, in, k, k] whose rows (or columns, if fewer), flattened, are orthogonal of length GAIN.

    Computed in float64: rounding to float32 then removes differences between linear algebra libraries.
    """
    flat = rng.standard_normal((shape[0], math.prod(shape[1:])))
    left, _, right = np.linalg.svd(flat, full_matrices=False)
    basis = left if left.shape == flat.shape else right
    return (GAIN * basis).reshape(shape).astype(np.float32)


def initial(net: nn.Cell, seed: int) -> State:
    """The initial state of training: a function of the seed alone.

    Convolutions are orthogonal. Transposed convolutions and their biases are uniform within 1 / sqrt(fan in),
    which is MindSpore's default (HeUniform with slope sqrt(5)). BatchNorm starts at mean 0, variance 1.
    """
    state = {}
    fan_in = 1
    for index, (name, parameter) in enumerate(net.parameters_dict().items()):
        rng = np.random.default_rng([seed, index])
        shape = tuple(parameter.shape)
        if name.endswith(("moving_mean", "beta", "tau")):
            state[name] = np.zeros(shape, np.float32)
        elif name.endswith(("moving_variance", "gamma")):
            state[name] = np.ones(shape, np.float32)
        elif len(shape) == 4 and shape[-1] != 2:
            state[name] = orthogonal(shape, rng)
        else:
            fan_in = math.prod(shape[1:]) if len(shape) == 4 else fan_in  # a bias follows its weight
            bound = 1.0 / math.sqrt(fan_in)
            state[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
    return state


def shapes(net: nn.Cell) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter by its name."""
    return {name: tuple(parameter.shape) for name, parameter in net.parameters_dict().items()}


def load(net: nn.Cell, state: State) -> None:
    """Give the network every value of the state; names and shapes must be the network's own."""
    parameters = net.parameters_dict()
    assert parameters.keys() == state.keys(), parameters.keys() ^ state.keys()
    for name, parameter in parameters.items():
        parameter.set_data(ms.Tensor(state[name]))


def copy(net: nn.Cell) -> State:
    """Copy every parameter to the host."""
    return {name: parameter.asnumpy().copy() for name, parameter in net.parameters_dict().items()}


class _FromRankZero(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.broadcast = ops.Broadcast(0)

    def construct(self, flat: ms.Tensor) -> ms.Tensor:
        return self.broadcast((flat,))[0]


def take_from_rank_zero(net: nn.Cell) -> None:
    """Broadcast rank 0's parameters to all ranks. Collective: every rank must call it.

    The same seed draws the same initial values, but linear algebra libraries choose their kernels by the CPU:
    between different hosts a last bit could differ.
    """
    state = copy(net)
    flat = np.concatenate([value.ravel() for value in state.values()])
    received = _FromRankZero()(ms.Tensor(flat)).asnumpy()
    ends = np.cumsum([value.size for value in state.values()])
    pieces = np.split(received, ends[:-1])
    load(net, {name: piece.reshape(state[name].shape) for name, piece in zip(state, pieces, strict=True)})
