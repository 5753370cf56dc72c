"""Checkpoints of a run: only whole ones count, the newest and the best stay, a crash never leaves none."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from orchestrator.training.checkpoints import checkpoint_name, newest_good, prune, remove_leftovers
from sdnet import checkpoint
from sdnet.checkpoint import CheckpointState, verify


def save(root: Path, step: int, fpr95: float | None = None) -> Path:
    state = CheckpointState(
        epoch=0, step=step, samples=step, seed=0, slices=1, world_size=1, num_samples=9, recipe={},
        losses=(0.0,), metrics={} if fpr95 is None else {"fpr95": fpr95},
    )  # fmt: skip
    directory = root / checkpoint_name(step)
    weights = {"embedding.1.weight": np.full((2, 3), step, np.float32)}
    checkpoint.write(directory, weights, {"global_step": np.array([step], np.float32)}, state)
    return directory


def kept(root: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step_")) for path in root.glob("step_*") if path.suffix == "")


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, Path.unlink], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("file", ["model.ckpt", "optimizer.ckpt", "state.json"])
def test_a_damaged_newest_checkpoint_is_set_aside_and_the_one_before_is_used(
    tmp_path: Path, damage: Callable[[Path], None], file: str
) -> None:
    good, bad = save(tmp_path, 3), save(tmp_path, 5)
    damage(bad / file)
    found, corrupt = newest_good(tmp_path)
    assert found == good
    [(aside, reason)] = corrupt
    assert aside.name == "step_00000005.corrupt" and aside.is_dir() and file in reason
    assert newest_good(tmp_path) == (good, [])


def test_without_a_good_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert newest_good(tmp_path / "nothing") == (None, [])
    truncate(save(tmp_path, 1) / "model.ckpt")
    found, corrupt = newest_good(tmp_path)
    assert found is None and len(corrupt) == 1


def test_the_newest_and_the_best_by_fpr95_are_kept(tmp_path: Path) -> None:
    for step, rate in ((1, 0.5), (2, 0.1), (3, 0.4), (4, None), (5, 0.3)):
        save(tmp_path, step, rate)
    assert [path.name for path in prune(tmp_path, 2)] == [checkpoint_name(1), checkpoint_name(3)]
    assert kept(tmp_path) == [2, 4, 5]


def test_names_sort_as_steps_do_beyond_eight_digits(tmp_path: Path) -> None:
    small, large = save(tmp_path, 99_999_999), save(tmp_path, 100_000_000)
    assert newest_good(tmp_path)[0] == large
    prune(tmp_path, 1)
    assert not small.exists()


class Crash(BaseException):
    """The process ends here."""


_POINTS = ("write_parameters", "_sum", "_write_state", "_sync", "_put", "rename")


@pytest.mark.parametrize("point", _POINTS)
@pytest.mark.parametrize("visit", [1, 2])
def test_a_crash_at_any_point_of_a_save_leaves_the_earlier_checkpoint_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, visit: int
) -> None:
    earlier = save(tmp_path, 3)
    owner = Path if point == "rename" else checkpoint
    original = getattr(owner, point)
    visits = 0

    def crash(*arguments: object, **options: object) -> object:
        nonlocal visits
        visits += 1
        if visits == visit:
            raise Crash
        return original(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(owner, point, crash)
        # A killed process cleans nothing up.
        patched.setattr(checkpoint.shutil, "rmtree", lambda *arguments, **options: None)
        try:
            save(tmp_path, 5)
            crashed = False
        except Crash:
            crashed = True
    assert crashed == (visits >= visit)
    found, corrupt = newest_good(tmp_path)
    assert found is not None and corrupt == []
    assert found == (earlier if crashed and not (tmp_path / checkpoint_name(5)).exists() else found)
    assert verify(found).step in (3, 5)
    remove_leftovers(tmp_path)
    assert all(path.name.startswith("step_") for path in tmp_path.iterdir())
