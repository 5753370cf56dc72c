"""What is read is what was written, or it is refused in one line."""

import errno
import os
from dataclasses import asdict, replace
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from sdnet import checkpoint, weights
from sdnet.checkpoint import CheckpointState, CorruptCheckpoint, read_model, verify, write
from sdnet.config import Recipe
from sdnet.errors import InputError
from sdnet.model import SDNet

FILES = ("model.ckpt", "optimizer.ckpt", "state.json")
STATE = CheckpointState(
    epoch=1, step=7, samples=112, seed=0, slices=2, world_size=1, num_samples=40,
    recipe=asdict(Recipe()), losses=(0.1, float(np.float32(1) / 3)), metrics={"fpr95": 0.5},
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> weights.State:
    return weights.initial(SDNet(Recipe(), training=True), seed=3)


@pytest.fixture(scope="module")
def shapes(model: weights.State) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in model.items()}


@pytest.fixture
def saved(model: weights.State, tmp_path: Path) -> Path:
    write(tmp_path / "step_7", model, {"global_step": np.array([7], np.int32)}, STATE)
    return tmp_path / "step_7"


def test_a_checkpoint_comes_back_as_it_was(saved, model, shapes):
    assert verify(saved) == STATE
    back = read_model(saved, shapes)
    assert list(back) == list(model)
    assert all((back[name] == model[name]).all() for name in model)
    assert checkpoint.read_optimizer(saved)["global_step"] == 7
    assert sorted(path.name for path in saved.iterdir()) == sorted(FILES)
    assert [path.name for path in saved.parent.iterdir()] == ["step_7"]


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_found(saved, name):
    os.truncate(saved / name, (saved / name).stat().st_size - 1)
    with pytest.raises(CorruptCheckpoint, match=f"{name} is not what was written"):
        verify(saved)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_a_flipped_bit_is_found(saved, name, where):
    content = bytearray((saved / name).read_bytes())
    content[int(where * len(content))] ^= 1
    (saved / name).write_bytes(content)
    with pytest.raises(CorruptCheckpoint, match=f"{name} is not what was written"):
        verify(saved)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(saved, name):
    (saved / name).unlink()
    with pytest.raises(CorruptCheckpoint, match=f"{name} is missing"):
        verify(saved)


def test_a_full_disk_leaves_nothing_and_the_checkpoint_before_it(saved, model, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(saved, model, {}, replace(STATE, step=8))
    monkeypatch.undo()
    assert verify(saved) == STATE
    assert [path.name for path in saved.parent.iterdir()] == ["step_7"]


def test_writing_the_same_again_keeps_it_and_a_corrupt_one_is_replaced(saved, model):
    inode = saved.stat().st_ino
    write(saved, model, {"global_step": np.array([7], np.int32)}, STATE)
    assert saved.stat().st_ino == inode
    (saved / "model.ckpt").write_bytes(b"")
    write(saved, model, {"global_step": np.array([7], np.int32)}, STATE)
    assert verify(saved) == STATE
    assert [path.name for path in saved.parent.iterdir()] == ["step_7"]


def test_a_single_file_in_published_names_reads_back(model, shapes, tmp_path):
    path = tmp_path / "checkpoint_SDNet_5.ckpt"
    checkpoint.write_published(path, model)
    assert "model_L.lower_opt.0.weight" in ms.load_checkpoint(str(path))
    assert all((value == model[name]).all() for name, value in read_model(path, shapes).items())
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.shared
def test_the_published_checkpoint_reads_by_its_own_names(shared, shapes):
    state = read_model(shared / "reference/checkpoint_SDNet_5.ckpt", shapes)
    assert {name: value.shape for name, value in state.items()} == shapes


def garbage(path: Path, model: weights.State) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def empty(path: Path, model: weights.State) -> None:
    path.write_bytes(b"")


def cut_off(path: Path, model: weights.State) -> None:
    checkpoint.write_published(path, model)
    os.truncate(path, 100_001)


def another_network(path: Path, model: weights.State) -> None:
    checkpoint.write_parameters(path, {"fc.weight": np.ones((2, 2), np.float32)})


def another_size(path: Path, model: weights.State) -> None:
    checkpoint.write_published(path, model | {"lower_opt.0.weight": np.ones((3, 32, 3, 3), np.float32)})


def absent(path: Path, model: weights.State) -> None:
    assert not path.exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (garbage, "is not a whole MindSpore checkpoint"),
        (empty, "is not a whole MindSpore checkpoint"),
        (cut_off, "is not a whole MindSpore checkpoint"),
        (another_network, r"holds no model\.features_opt\.0\.weight; give a checkpoint of SDNet"),
        (another_size, r"lower_opt\.0\.weight is float32 \[3, 32, 3, 3\], not float32 \[2, 32, 3, 3\]"),
        (absent, "is not there"),
    ],
)
def test_what_is_no_checkpoint_of_sdnet_is_refused_in_one_clean_line(
    make, message, model, shapes, tmp_path, capfd
):
    make(tmp_path / "given.ckpt", model)
    with pytest.raises(InputError, match=message) as caught:
        read_model(tmp_path / "given.ckpt", shapes)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
