"""Ray's files are in a private folder, which is removed when the launch ends or at the next launch."""

import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.ray_cluster.private_folder import (
    LONGEST_BASE,
    private_folder,
    remove_abandoned,
    usable_base,
)
from sdnet.errors import InputError
from tests.disk import fill, small_disk

_HOLDS_ONE = """
import sys
from orchestrator.ray_cluster.private_folder import private_folder
with private_folder() as folder:
    (folder / "session").mkdir()
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def base(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short folder that is TMPDIR for the test."""
    path = Path(os.environ["TMPDIR"]) / "b"
    path.mkdir()
    monkeypatch.setenv("TMPDIR", str(path))
    monkeypatch.delenv("RAY_TMPDIR")
    yield path
    path.rmdir()


def holder() -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", _HOLDS_ONE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_folder_is_private_short_and_gone_afterwards(base: Path) -> None:
    with private_folder() as folder:
        assert folder.parent.parent == base and stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
        (folder / "session" / "logs").mkdir(parents=True)
        socket = folder / "session_2026-11-26_03-18-54_123456_4194304" / "sockets" / "plasma_store"
        assert len(os.fsencode(socket)) - len(os.fsencode(base)) + LONGEST_BASE == 107
    assert not folder.parent.exists()


def test_a_folder_that_ray_opens_to_everybody_is_inside_a_private_one(base: Path) -> None:
    with private_folder() as folder:
        folder.chmod(0o777)  # as Ray does
        assert folder.parent != base and stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


def test_the_folder_of_a_killed_process_is_removed_by_the_next_and_that_of_a_living_one_stays(
    base: Path,
) -> None:
    with holder() as killed, holder() as living:
        assert killed.stdout is not None and living.stdout is not None
        folders = [Path(output.readline().strip()) for output in (killed.stdout, living.stdout)]
        killed.kill()
        killed.wait()
        assert folders[0].exists()
        with private_folder():
            assert [folder.exists() for folder in folders] == [False, True]
        living.communicate("")
    assert not folders[1].exists()


def test_links_files_and_folders_of_other_names_are_left_alone(base: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    others = [base / "sdnet-12345678", base / "sdnet-87654321", base / "sdnet-x", base / "mine"]
    others[0].symlink_to(tmp_path / "kept")
    others[1].write_text("")
    others[2].mkdir()
    others[3].mkdir()
    remove_abandoned(base)
    assert all(path.exists() for path in others) and (tmp_path / "kept").exists()
    others[0].unlink()
    others[1].unlink()
    others[2].rmdir()
    others[3].rmdir()


def test_a_folder_too_long_for_sockets_or_not_writable_is_passed_over(tmp_path: Path) -> None:
    long = tmp_path / ("x" * LONGEST_BASE)
    long.mkdir()
    (tmp_path / "file").write_text("")
    for unusable in (long, tmp_path / "none", tmp_path / "file"):
        assert usable_base({"TMPDIR": str(unusable), "RAY_TMPDIR": str(unusable)}) == Path("/tmp")


def test_a_folder_whose_name_is_not_utf_8_is_passed_over(tmp_path: Path) -> None:
    named = Path(os.environ["TMPDIR"]) / os.fsdecode(b"\xd6")  # as in GBK or Latin-1
    named.mkdir()
    assert usable_base({"TMPDIR": str(named)}) == Path("/tmp")
    named.rmdir()


def test_a_relative_folder_in_a_deleted_directory_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert usable_base({"TMPDIR": "x"}) == Path("/tmp")


def test_a_full_disk_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Path(os.environ["TMPDIR"]) / "d"
    with small_disk(disk, 2):
        fill(disk)
        assert usable_base({"TMPDIR": str(disk)}) == Path("/tmp")
        monkeypatch.setattr("orchestrator.ray_cluster.private_folder._DEFAULT", str(disk))
        with pytest.raises(InputError, match=r"/d: No space left on device\); .* set TMPDIR to a short"):
            usable_base({"TMPDIR": str(disk)})
    disk.rmdir()


def test_a_file_system_without_locks_is_used_without_one(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with private_folder() as folder:
        remove_abandoned(base)
        assert folder.exists()
    assert not folder.exists()
