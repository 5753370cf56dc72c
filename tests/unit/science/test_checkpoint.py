"""What is read is what was written, or it is refused in one line."""

import errno
import hashlib
import json
import os
import stat
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from sdnet.config import Recipe
from sdnet.errors import NonFiniteLoss
from sdnet.network.model import SDNet
from sdnet.parameters import checkpoint, weights
from sdnet.parameters.checkpoint import (
    CheckpointState,
    CorruptCheckpoint,
    Snapshot,
    read_model,
    read_recipe,
    read_state,
    verify,
)
from sdnet.parameters.published import digest, write_published
from tests.unit.sdnet_checkpoints import save
from tests.unprivileged import as_nobody, let_anybody_write

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
    Snapshot(model, {"global_step": np.array([7], np.int32)}, STATE).write(tmp_path / "step_7")
    return tmp_path / "step_7"


def test_a_checkpoint_comes_back_as_it_was(saved, model, shapes):
    assert verify(saved) == STATE
    back = read_model(saved, shapes)
    assert list(back) == list(model)
    assert all((back[name] == model[name]).all() for name in model)
    assert checkpoint.read(saved).optimizer["global_step"] == 7
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


def test_a_full_disk_leaves_no_partial_checkpoint_and_keeps_the_one_before(saved, model, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        Snapshot(model, {}, replace(STATE, step=8)).write(saved)
    monkeypatch.undo()
    assert verify(saved) == STATE
    assert [path.name for path in saved.parent.iterdir()] == ["step_7"]


def test_writing_the_same_again_keeps_it_and_a_corrupt_one_stays_next_to_the_new_one(saved, model):
    inodes = [path.stat().st_ino for path in sorted(saved.iterdir())]
    snapshot = Snapshot(model, {"global_step": np.array([7], np.int32)}, STATE)
    assert snapshot.write(saved) == saved
    assert [path.stat().st_ino for path in sorted(saved.iterdir())] == inodes
    (saved / "model.ckpt").write_bytes(b"")
    new = snapshot.write(saved)
    assert new.name == "step_7.2" and verify(new) == STATE
    with pytest.raises(CorruptCheckpoint):
        verify(saved)


def test_another_checkpoint_of_the_same_step_leaves_the_first_one_valid_at_every_moment(
    saved, model, monkeypatch
):
    """A reader never sees a valid checkpoint as corrupt, because a valid one is never renamed or rewritten."""
    seen = []
    real = os.fsync

    def look(descriptor: int) -> None:
        real(descriptor)
        seen.append(verify(saved))

    monkeypatch.setattr(os, "fsync", look)
    new = Snapshot(model, {}, replace(STATE, seed=9)).write(saved)
    monkeypatch.undo()
    assert len(seen) > 4 and set(map(repr, seen)) == {repr(STATE)}
    assert new.name == "step_7.2" and verify(new).seed == 9


def test_what_a_killed_process_left_without_a_state_is_completed(saved, model):
    (saved / "state.json").unlink()
    (saved / "model.ckpt").write_bytes(b"half")
    assert Snapshot(model, {"global_step": np.array([7], np.int32)}, STATE).write(saved) == saved
    assert verify(saved) == STATE


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "change", [directory, pipe, link_to_itself], ids=["folder", "pipe", "link to itself"]
)
def test_an_unreadable_file_is_corrupt_and_reading_it_does_not_hang(saved, name, change):
    change(saved / name)
    with pytest.raises(CorruptCheckpoint, match=f"{name} cannot be read .*; use an earlier checkpoint"):
        verify(saved)


@pytest.mark.parametrize("content", [b"", b"[]", b"[" * 100_000, b"\xff\xfe", b"null", b'{"sha256": 1}'])
def test_an_invalid_state_is_corrupt(saved, content):
    (saved / "state.json").write_bytes(content)
    with pytest.raises(CorruptCheckpoint, match="state.json is not what was written"):
        verify(saved)


@pytest.mark.parametrize("field", ["recipe", "files"])
@pytest.mark.parametrize("value", [None, [1], 5])
def test_a_state_of_another_form_is_corrupt_although_its_checksum_is_right(saved, field, value):
    content = json.loads((saved / "state.json").read_text())
    content = {**content, field: value}
    del content["sha256"]
    signature = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    (saved / "state.json").write_text(json.dumps({**content, "sha256": signature}))
    with pytest.raises(CorruptCheckpoint, match="state.json is not what was written"):
        verify(saved)


@pytest.mark.parametrize("occupy", [Path.touch, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_anything_else_under_the_name_of_a_checkpoint_stays_and_the_next_name_is_used(
    model, tmp_path, occupy
):
    occupy(tmp_path / "step_7")
    new = Snapshot(model, {}, STATE).write(tmp_path / "step_7")
    assert new == tmp_path / "step_7.2" and verify(new) == STATE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_7", "step_7.2"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_diverged_are_not_saved(model, tmp_path, value):
    name = "embedding.14.weight"
    bad = model[name].copy()
    bad[1, 2, 3, 4] = value
    for given in ((model | {name: bad}, {}), (model, {"moment1": bad})):
        with pytest.raises(NonFiniteLoss, match="the weights are not finite after step 7"):
            Snapshot(*given, STATE).write(tmp_path / "step_7")
    assert list(tmp_path.iterdir()) == []


def test_the_checksum_of_the_weights_is_in_the_state_and_the_same_in_any_file(saved, model, shapes):
    found = checkpoint.load_model(saved, shapes)
    assert checkpoint.read_origin(saved) == found.origin
    single = saved.parent / "alone.ckpt"
    write_published(single, model)
    assert checkpoint.load_model(single, shapes).weights_sha256 == found.weights_sha256
    assert (
        found.weights_sha256
        == digest(dict(reversed(model.items())))
        != digest(model | {"decoder.8.bias": np.ones(1, np.float32)})
    )


def test_a_checkpoint_of_an_earlier_version_without_that_checksum_still_loads(saved, model, shapes):
    content = json.loads((saved / "state.json").read_text())
    del content["weights_sha256"], content["sha256"]
    checkpoint._write_state(saved / "state.json", content)
    assert verify(saved) == STATE
    assert checkpoint.read_origin(saved)["weights_sha256"] is None


def test_new_files_have_the_mode_that_the_umask_gives(model, tmp_path):
    before = os.umask(0o027)
    try:
        Snapshot(model, {}, STATE).write(tmp_path / "step_7")
        write_published(tmp_path / "alone.ckpt", model)
    finally:
        os.umask(before)
    made = [*(tmp_path / "step_7").iterdir(), tmp_path / "alone.ckpt", tmp_path / "alone.ckpt.sha256"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o640}


def test_the_current_directory_is_named_by_its_full_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        CorruptCheckpoint, match=f"{tmp_path}/state.json is missing; give a checkpoint directory"
    ):
        read_state(Path())


def test_the_folder_of_a_run_whose_checkpoints_this_user_may_not_list_is_no_checkpoint(tmp_path):
    let_anybody_write(tmp_path)
    (tmp_path / "checkpoints").mkdir(mode=0)

    def refusal() -> str:
        with pytest.raises(CorruptCheckpoint) as refused:
            read_state(tmp_path)
        return str(refused.value)

    assert as_nobody(refusal) == f"{tmp_path}/state.json is missing; give a checkpoint directory"


@pytest.mark.parametrize("given", ["run", "run/checkpoints"])
def test_for_the_folder_of_a_run_its_newest_checkpoint_is_named(given, tmp_path, monkeypatch):
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    save(tmp_path / "run/checkpoints", 7)
    newest = save(tmp_path / "run/checkpoints", 60)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CorruptCheckpoint) as refused:
        read_recipe(Path(given))
    assert str(refused.value) == (
        f"{tmp_path / given} is no checkpoint, but contains some; give one of them, as {newest}"
    )
