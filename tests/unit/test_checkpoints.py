"""Checkpoints of a run: only whole ones count, the newest and the best stay, a crash never leaves none."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.training.checkpoints import checkpoint_name, newest_good, prune, remove_leftovers
from sdnet.checkpoint import verify
from tests.unit.saving import save
from tests.unprivileged import as_nobody


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


def test_a_checkpoint_under_the_name_of_another_step_is_set_aside(tmp_path: Path) -> None:
    good = save(tmp_path, 3)
    save(tmp_path, 5).rename(tmp_path / checkpoint_name(9))
    found, [(aside, reason)] = newest_good(tmp_path)
    assert found == good and aside.name == "step_00000009.corrupt" and "holds step 5" in reason


def folder_instead(file: Path) -> None:
    file.unlink()
    file.mkdir()


def pipe_instead(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize("change", [folder_instead, pipe_instead], ids=["folder", "pipe"])
@pytest.mark.parametrize("file", ["model.ckpt", "state.json"])
def test_where_a_file_can_never_be_read_the_checkpoint_before_is_used(
    tmp_path: Path, change: Callable[[Path], None], file: str
) -> None:
    good, bad = save(tmp_path, 3), save(tmp_path, 5)
    change(bad / file)
    found, [(_, reason)] = newest_good(tmp_path)
    assert found == good and f"{file} cannot be read" in reason


@pytest.mark.parametrize("locked", ["model.ckpt", "state.json", ""])
def test_where_an_ordinary_user_may_not_read_a_file_the_checkpoint_before_is_used(
    tmp_path: Path, locked: str
) -> None:
    tmp_path.chmod(0o777)
    for parent in (tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(0o755)

    def found() -> str:
        root = tmp_path / "checkpoints"
        root.mkdir()
        good, bad = save(root, 3), save(root, 5)
        (bad / locked).chmod(0)
        newest, corrupt = newest_good(root)
        for directory, _ in corrupt:
            (directory / locked).chmod(0o700)
        assert newest == good
        return corrupt[0][1]

    assert "cannot be read (Permission denied); use an earlier checkpoint" in as_nobody(found)


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


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("spoilt", [False, True], ids=["new", "over-a-bad-one"])
def test_a_crash_at_every_single_point_of_a_save_leaves_a_good_checkpoint(
    tmp_path: Path, spoilt: bool
) -> None:
    start = tmp_path / "start"
    start.mkdir()
    wanted = {3: content(save(start, 3)), 5: content(save(start, 5)), 7: content(save(start, 7))}
    if spoilt:
        truncate(start / checkpoint_name(7) / "model.ckpt")
    else:
        shutil.rmtree(start / checkpoint_name(7))
    subprocess.run([sys.executable, "-m", "tests.unit.saving", str(tmp_path), "7", "2"], check=True)
    crashed = sorted((path for path in tmp_path.iterdir() if path != start), key=lambda path: int(path.name))
    found_at = []
    for root in crashed:
        found, corrupt = newest_good(root)
        assert found is not None and content(found) == wanted[verify(found).step]
        assert len(corrupt) <= int(spoilt)
        found_at.append(verify(found).step)
        remove_leftovers(root)
        save(root, 9)
        prune(root, 2)
        assert newest_good(root)[0] == root / checkpoint_name(9)
        assert kept(root) == [found_at[-1], 9]
    # The old one until the new one has its name, from then on the new one; and many points of each.
    assert found_at == sorted(found_at) and found_at.count(5) > 15 and found_at.count(7) > 5
