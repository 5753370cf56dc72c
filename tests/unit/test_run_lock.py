"""One launch at a time, and a lock file through which nobody can have another file emptied."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.run_lock import locked
from sdnet.errors import InputError


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    made = RunDirectory(tmp_path / "run")
    made.make_root()
    return made


def symbolic(lock: Path, target: Path) -> None:
    lock.symlink_to(target)


def hard(lock: Path, target: Path) -> None:
    lock.hardlink_to(target)


@pytest.mark.parametrize("link", [symbolic, hard])
def test_a_link_in_its_place_is_refused_and_its_target_keeps_every_byte(
    run: RunDirectory, tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    link(run.root / "launch.lock", target)
    with pytest.raises(InputError, match=r"launch\.lock .*; remove it"), locked(run):
        pass
    assert target.read_text() == "precious"


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_is_refused_at_once(run: RunDirectory, make: Callable[[Path], None]) -> None:
    make(run.root / "launch.lock")
    with (
        pytest.raises(InputError, match=r"launch\.lock (cannot be opened|is not a regular file)"),
        locked(run),
    ):
        pass


def test_the_second_is_refused_with_the_name_of_the_first_and_the_third_may_go_on(run: RunDirectory) -> None:
    with locked(run):
        with pytest.raises(InputError, match=f"is being run by process {os.getpid()} on "), locked(run):
            pass
        assert f"process {os.getpid()}" in (run.root / "launch.lock").read_text()
    with locked(run):
        pass


def test_its_mode_follows_the_umask(run: RunDirectory) -> None:
    before = os.umask(0o002)
    try:
        with locked(run):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((run.root / "launch.lock").stat().st_mode) == 0o664
