"""The bytes of a `.ckpt` file are those that protobuf and MindSpore write."""

from pathlib import Path

import mindspore as ms
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from mindspore.train.checkpoint_pb2 import Checkpoint

from sdnet.parameters.parameter_file import _DTYPES, _TYPES, serialize

ARRAYS = st.sampled_from(list(_DTYPES.values())).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_side=40))
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=200), ARRAYS, max_size=3))
def test_a_file_has_the_bytes_that_protobuf_writes(parameters: dict[str, np.ndarray]) -> None:
    message = Checkpoint()
    for name, array in parameters.items():
        entry = message.value.add()
        entry.tag = name
        entry.tensor.tensor_type = _TYPES[array.dtype]
        entry.tensor.dims.extend(array.shape)
        entry.tensor.tensor_content = array.tobytes()
    assert serialize(parameters) == message.SerializeToString()


def test_a_file_has_the_bytes_that_mindspore_writes(tmp_path: Path) -> None:
    parameters = {"conv.weight": np.arange(600, dtype=np.float32).reshape(2, 3, 10, 10), "step": np.int32(7)}
    path = tmp_path / "a.ckpt"
    ms.save_checkpoint(
        [{"name": name, "data": ms.Tensor(value)} for name, value in parameters.items()], str(path)
    )
    assert serialize({name: np.asarray(value) for name, value in parameters.items()}) == path.read_bytes()


def test_values_that_are_not_contiguous_are_written_in_their_order() -> None:
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert serialize({"a": rows.T}) == serialize({"a": rows.T.copy()})
