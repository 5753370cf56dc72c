"""Checkpoints in a directory: whatever a crash, a person or a disk leaves, no run resumes from wrong data."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.engine.checkpoints import (
    CheckpointsLost,
    checkpoint_names,
    newest_valid,
    read_checkpoint,
    refuse_lost,
)
from orchestrator.engine.checkpoints.pruning import prune
from orchestrator.storage import DirectoryStorage, StorageMisused, StorageUnavailable, takes_writes
from tests.unit.engine.crashing import save
from tests.unprivileged import as_nobody, let_anybody_write


def folder_instead(file: Path) -> None:
    file.unlink()
    file.mkdir()


def pipe_instead(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def link_to_itself(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


@pytest.mark.parametrize("change", [folder_instead, pipe_instead, link_to_itself], ids=lambda c: c.__name__)
@pytest.mark.parametrize("file", ["arrays.npz", "state.json"])
def test_where_a_file_can_never_be_read_the_checkpoint_before_is_used(
    tmp_path: Path, change: Callable[[Path], None], file: str
) -> None:
    storage = DirectoryStorage(tmp_path)
    earlier, newest = save(tmp_path, 3), save(tmp_path, 5)
    change(tmp_path / "checkpoints" / newest / file)
    name, _, corrupt = newest_valid(storage)
    assert name == earlier
    # A folder at the place of state.json is no state.json, so that checkpoint does not even exist.
    exists = not (file == "state.json" and change is folder_instead)
    assert [newest in str(error) and file in str(error) for error in corrupt] == [True] * exists
    assert newest_valid(storage)[0] == earlier


@pytest.mark.parametrize("locked", ["arrays.npz", "state.json", ""])
def test_where_an_ordinary_user_may_not_read_a_file_the_checkpoint_before_is_used(
    tmp_path: Path, locked: str
) -> None:
    let_anybody_write(tmp_path)

    def found() -> str:
        root = tmp_path / "run"
        root.mkdir()
        earlier, newest = save(root, 3), save(root, 5)
        (root / "checkpoints" / newest / locked).chmod(0)
        found = [newest_valid(DirectoryStorage(root), known=known)[0] for known in (None, newest)]
        again = save(root, 5)
        (root / "checkpoints" / newest / locked).chmod(0o700)
        assert found == [earlier, earlier] and again == f"{newest}.2"
        return "the earlier one"

    assert as_nobody(found) == "the earlier one"


def test_a_save_into_a_blocked_storage_names_the_cause_and_the_next_one_succeeds(tmp_path: Path) -> None:
    root, away = tmp_path / "run", tmp_path / "away"
    root.mkdir()
    save(root, 3)
    root.rename(away)
    root.touch()  # a file at the place of the mount
    with pytest.raises(StorageMisused, match="Not a directory"):
        save(root, 5)
    root.unlink()
    away.rename(root)
    assert save(root, 5) == "step_00000005"


def test_a_checkpoint_under_the_name_of_another_step_is_corrupt(tmp_path: Path) -> None:
    earlier = save(tmp_path, 3)
    folder = tmp_path / "checkpoints"
    (folder / save(tmp_path, 5)).rename(folder / "step_00000009")
    name, _, [corrupt] = newest_valid(DirectoryStorage(tmp_path))
    assert name == earlier and "step_00000009" in str(corrupt) and "it is of step 5" in str(corrupt)


def test_names_sort_as_steps_do_beyond_eight_digits(tmp_path: Path) -> None:
    save(tmp_path, 99_999_999)
    large = save(tmp_path, 100_000_000)
    storage = DirectoryStorage(tmp_path)
    assert newest_valid(storage)[0] == large
    prune(storage, 1)
    assert checkpoint_names(storage) == [large]


def test_a_run_whose_checkpoints_are_gone_does_not_silently_begin_again(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)
    refuse_lost(storage, None)  # a new run
    with pytest.raises(CheckpointsLost, match=r"although the run saved step_00000007 \(all are gone\)"):
        refuse_lost(storage, "step_00000007")
    (tmp_path / "checkpoints" / save(tmp_path, 5) / "arrays.npz").write_bytes(b"")
    assert newest_valid(storage)[0] is None
    with pytest.raises(CheckpointsLost, match=r"no valid checkpoint \(corrupt: step_00000005\)"):
        refuse_lost(storage, None)
    for step in (6, 7):
        (tmp_path / "checkpoints" / save(tmp_path, step) / "state.json").unlink()
    lost = r"\(corrupt: step_00000005; without state.json: step_00000006, step_00000007\)"
    with pytest.raises(CheckpointsLost, match=f"saved step_00000008 {lost}"):
        refuse_lost(storage, "step_00000008")


def link_to_nothing(path: Path) -> None:
    path.symlink_to(path.with_name("bigger disk"))


@pytest.mark.parametrize(
    "away", [Path.touch, link_to_nothing, lambda path: None], ids=["file", "link", "gone"]
)
@pytest.mark.parametrize("place", ["run", "run/checkpoints"])
def test_checkpoints_on_a_mount_that_is_away_are_not_lost(
    tmp_path: Path, place: str, away: Callable[[Path], object]
) -> None:
    storage = DirectoryStorage(tmp_path / "run")
    (tmp_path / "run").mkdir()
    saved = save(storage.root, 7)
    (tmp_path / place).rename(tmp_path / "elsewhere")
    away(tmp_path / place)
    somebody_deleted_it = place == "run/checkpoints" and not os.path.lexists(tmp_path / place)
    if somebody_deleted_it:
        assert newest_valid(storage, known=saved, wait=lambda seconds: None)[0] is None
    else:
        with pytest.raises((StorageUnavailable, StorageMisused)):
            newest_valid(storage, known=saved)
    assert takes_writes(storage, "checkpoints/") == somebody_deleted_it


class BadBlock(DirectoryStorage):
    """A disk on which one object cannot be read."""

    def get(self, name: str) -> bytes:
        if name == "checkpoints/step_00000005/arrays.npz":
            raise StorageUnavailable(name, "Input/output error")
        return super().get(name)


def test_a_checkpoint_on_a_bad_block_is_passed_over_and_not_marked(tmp_path: Path) -> None:
    earlier, newest = save(tmp_path, 3), save(tmp_path, 5)
    pauses: list[float] = []
    name, _, [unreadable] = newest_valid(BadBlock(tmp_path), wait=pauses.append)
    assert name == earlier and pauses == [2.0]
    assert newest in str(unreadable) and "cannot be read: Input/output error" in str(unreadable)
    assert newest_valid(DirectoryStorage(tmp_path))[0] == newest


def test_a_checkpoint_on_a_bad_block_is_not_given_up_if_it_is_the_only_one_or_that_of_a_finished_run(
    tmp_path: Path,
) -> None:
    save(tmp_path, 5)
    with pytest.raises(StorageUnavailable, match="Input/output error"):
        newest_valid(BadBlock(tmp_path))
    save(tmp_path, 3)
    with pytest.raises(StorageUnavailable, match="Input/output error"):
        newest_valid(BadBlock(tmp_path), finished=True)


@pytest.mark.parametrize("damaged", [False, True], ids=["new", "beside a corrupt one"])
def test_a_crash_at_every_single_point_of_a_save_leaves_a_valid_checkpoint(
    tmp_path: Path, damaged: bool
) -> None:
    start = tmp_path / "start"
    start.mkdir()
    wanted = {step: read_checkpoint(DirectoryStorage(start), save(start, step)) for step in (3, 5, 7)}
    if damaged:
        os.truncate(start / "checkpoints" / "step_00000007" / "arrays.npz", 40)
    else:
        shutil.rmtree(start / "checkpoints" / "step_00000007")
    subprocess.run([sys.executable, "-m", "tests.unit.engine.crashing", str(tmp_path), "7", "2"], check=True)
    crashed = sorted((path for path in tmp_path.iterdir() if path != start), key=lambda path: int(path.name))
    found_at = []
    for root in crashed:
        storage = DirectoryStorage(root)
        name, found, corrupt = newest_valid(storage)
        assert name is not None and found is not None and found == wanted[found.step]
        assert len(corrupt) <= int(damaged)
        found_at.append(found.step)
        newest = save(root, 9)
        prune(storage, 2)
        assert newest_valid(storage)[0] == newest
        assert [read_checkpoint(storage, kept).step for kept in checkpoint_names(storage)] == [found.step, 9]
    # The old one until the new one is whole, from then on the new one; and many points of each.
    assert found_at == sorted(found_at) and found_at.count(5) > 10 and found_at.count(7) > 3
