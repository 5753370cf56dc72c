"""Checkpoints in storage: what makes one valid, what makes one corrupt, and what pruning leaves."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from orchestrator.engine.checkpoints import checkpoint_names, newest_valid, read_checkpoint, write_checkpoint
from orchestrator.engine.checkpoints.pruning import prune
from orchestrator.engine.state_format import NpzFormat, State
from orchestrator.errors import CorruptData, InputError
from orchestrator.storage import DirectoryStorage, StorageUnavailable
from tests.unit.engine.fakes import MemoryStorage

FORMAT = NpzFormat()


def saved(storage: MemoryStorage, step: int, **metrics: float) -> str:
    state: State = {"weight": np.full(3, step, np.float32), "epoch": step // 10}
    return write_checkpoint(storage, FORMAT.encode(state, step, metrics))


ARRAYS = st.dictionaries(
    st.text(min_size=1, max_size=8),
    hnp.arrays(st.sampled_from([np.float32, np.int64, np.uint8, np.bool_]), hnp.array_shapes(min_dims=0)),
    max_size=4,
)


@given(arrays=ARRAYS, values=st.dictionaries(st.text(max_size=4), st.integers() | st.text() | st.none()))
def test_a_state_comes_back_as_it_was(arrays: State, values: State) -> None:
    state = {"step": 7, **values, **arrays}
    storage = MemoryStorage()
    name = write_checkpoint(storage, FORMAT.encode(state, 7, {"loss": 0.5}))
    read = read_checkpoint(storage, name)
    found = FORMAT.decode(read)
    assert found.keys() == state.keys() and read.step == 7 and read.metrics == {"loss": 0.5}
    for key, value in state.items():
        if isinstance(value, np.ndarray):
            assert found[key].dtype == value.dtype and found[key].tobytes() == value.tobytes()
        else:
            assert found[key] == value


def test_a_metric_that_is_not_finite_is_stored_as_json_and_read_as_nan() -> None:
    storage = MemoryStorage()
    name = saved(storage, 1, loss=0.5, precision=math.nan, gap=-math.inf)

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    json.loads(storage.objects[f"checkpoints/{name}/state.json"], parse_constant=refuse)
    read = read_checkpoint(storage, name).metrics
    assert read["loss"] == 0.5 and math.isnan(read["precision"]) and math.isnan(read["gap"])


def test_equal_states_have_equal_bytes() -> None:
    first, second = MemoryStorage(), MemoryStorage()
    saved(first, 3), saved(second, 3)
    assert first.objects == second.objects


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:40] + bytes([content[40] ^ 1]) + content[41:],
        lambda content: b"",
    ],
    ids=["truncated", "one bit flipped", "empty"],
)
@pytest.mark.parametrize("file", ["arrays.npz", "state.json"])
def test_a_damaged_checkpoint_is_marked_and_the_one_before_is_used(
    file: str, damage: Callable[[bytes], bytes]
) -> None:
    storage = MemoryStorage()
    older, newer = saved(storage, 1), saved(storage, 2)
    path = f"checkpoints/{newer}/{file}"
    storage.objects[path] = damage(storage.objects[path])
    name, _, corrupt = newest_valid(storage)
    assert name == older and [newer in str(error) for error in corrupt] == [True]
    assert checkpoint_names(storage) == [older]
    assert f"checkpoints/{newer}/corrupt" in storage.objects and path in storage.objects


def test_a_checkpoint_without_its_state_does_not_exist() -> None:
    storage = MemoryStorage()
    name = saved(storage, 1)
    del storage.objects[f"checkpoints/{name}/state.json"]
    assert checkpoint_names(storage) == []
    assert newest_valid(storage) == (None, None, [])


def test_the_state_is_written_last_and_removed_first() -> None:
    order: list[str] = []

    class Watched(MemoryStorage):
        def put(self, name: str, content: bytes) -> None:
            order.append(f"put {name}")
            super().put(name, content)

        def create(self, name: str, content: bytes) -> bool:
            order.append(f"create {name}")
            return super().create(name, content)

        def delete(self, name: str) -> None:
            order.append(f"delete {name}")
            super().delete(name)

    storage = Watched()
    saved(storage, 1), saved(storage, 2)
    prune(storage, keep=1)
    folder = "checkpoints/step_00000001"
    assert order[:2] == [f"create {folder}/arrays.npz", f"put {folder}/state.json"]
    assert order[4:] == [f"delete {folder}/state.json", f"delete {folder}/arrays.npz"]
    assert checkpoint_names(storage) == ["step_00000002"]


def test_a_name_is_never_written_twice() -> None:
    storage = MemoryStorage()
    first = saved(storage, 5, loss=1.0)
    assert saved(storage, 5, loss=1.0) == first
    assert saved(storage, 5, loss=2.0) == "step_00000005.2"
    assert saved(storage, 50) == "step_00000050"
    assert newest_valid(storage)[0] == "step_00000050"


def test_pruning_keeps_the_newest_and_the_best() -> None:
    storage = MemoryStorage()
    for step, loss in ((1, 0.5), (2, 0.1), (3, 0.4), (4, 0.3), (5, 0.2)):
        saved(storage, step, loss=loss)
    prune(storage, keep=2, best="loss")
    assert checkpoint_names(storage) == ["step_00000002", "step_00000004", "step_00000005"]


def test_avoided_checkpoints_are_skipped() -> None:
    storage = MemoryStorage()
    older, newer = saved(storage, 1), saved(storage, 2)
    assert newest_valid(storage, avoid={newer})[0] == older


def test_unavailable_storage_is_not_a_corrupt_checkpoint() -> None:
    storage = MemoryStorage()
    name = saved(storage, 1)
    storage.away = True
    with pytest.raises(StorageUnavailable):
        read_checkpoint(storage, name)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "state is a NoneType; return a dictionary"),
        ([np.zeros(2)], "state is a list; return a dictionary"),
        ({}, "state is empty, so a resume would begin with new weights; return them by name"),
        ({"weight": object()}, "'weight' is neither an array nor a JSON value .*make it a NumPy array"),
        ({"weight": np.float32(1)}, "'weight' is neither an array nor a JSON value"),
        ({"moments": {"weight": np.zeros(2)}}, "'moments' is neither an array nor a JSON value"),
        ({"rate": float("nan")}, "'rate' is neither an array nor a JSON value"),
        ({"weight": np.array([object()])}, "'weight' is an array of objects"),
        ({"weight": np.ma.masked_array([1.0, 2.0], [False, True])}, "'weight' is a masked array"),
        ({("a", 1): np.zeros(2)}, r"the key \('a', 1\); use text"),
        ({1: 5}, "the key 1; use text"),
        (
            {"rates": {1: 0.5}},
            "'rates' would come back from JSON as {'1': 0.5}; use lists, and text for keys",
        ),
        ({"generator": (3, None)}, r"'generator' would come back from JSON as \[3, None\]"),
    ],
)
def test_a_state_that_would_not_come_back_as_it_is_is_refused(state: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FORMAT.encode(state, 1, {})


def test_a_dtype_that_mindspore_adds_to_numpy_comes_back() -> None:
    halves = ms.Tensor([[1.5, -2.0]], ms.bfloat16).asnumpy()
    found = FORMAT.decode(FORMAT.encode({"halves": halves, "one": halves[0, 0:1].reshape(())}, 1, {}))
    assert found["halves"].dtype == found["one"].dtype == halves.dtype
    assert found["halves"].tobytes() == halves.tobytes() and found["one"].shape == ()
    assert (ms.Tensor(found["halves"]).float().asnumpy() == [[1.5, -2.0]]).all()


def test_a_structure_with_a_dtype_that_mindspore_adds_is_refused() -> None:
    halves = np.zeros(2, [("x", ms.Tensor([1.0], ms.bfloat16).asnumpy().dtype)])
    with pytest.raises(InputError, match="'halves' has the dtype .*, which is not NumPy's; convert it"):
        FORMAT.encode({"halves": halves}, 1, {})


def test_a_checkpoint_of_a_directory_survives_a_change_of_process(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)
    name = write_checkpoint(storage, FORMAT.encode({"weight": np.arange(4)}, 9, {}))
    assert FORMAT.decode(read_checkpoint(DirectoryStorage(tmp_path), name))["weight"].tolist() == [0, 1, 2, 3]


def test_a_corrupt_checkpoint_names_itself() -> None:
    storage = MemoryStorage()
    name = saved(storage, 1)
    storage.objects[f"checkpoints/{name}/state.json"] = b"[]"
    with pytest.raises(CorruptData, match="step_00000001.*not what was written"):
        read_checkpoint(storage, name)
