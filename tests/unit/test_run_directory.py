"""The run directory: small files are complete or absent, and an obstacle is reported by name."""

import json
import os
import stat
from pathlib import Path

import pytest

from orchestrator.job.run_directory import RunDirectory, write_atomically
from orchestrator.storage import DirectoryStorage
from sdnet.errors import InputError


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_atomically(path, '{"a": 1}')
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert json.loads(path.read_text()) == {"a": 1}
    assert [left.name for left in tmp_path.iterdir()] == ["summary.json"]


def test_storage_that_cannot_be_written_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = RunDirectory.of(str(tmp_path / "file"), "job")
    with pytest.raises(InputError, match="cannot be written .*give a writable directory"):
        run.create()


def test_a_uri_as_storage_is_refused_before_anything_is_made() -> None:
    with pytest.raises(InputError, match="s3://bucket"):
        RunDirectory.of("s3://bucket/runs", "job")


def test_storage_that_ray_train_cannot_write_to_is_refused(tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xd6\xd0")
    with pytest.raises(InputError, match=r"Ray Train writes only to folders with UTF-8 names: rename the"):
        RunDirectory.of(folder, "job")


@pytest.mark.parametrize(("mask", "mode"), [(0o002, 0o664), (0o077, 0o600)])
def test_files_of_a_run_have_the_mode_that_the_umask_gives(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "summary.json", "{}")
        DirectoryStorage(tmp_path).put("state.json", b"{}")
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()] == [mode, mode]


def test_a_name_of_the_longest_kind_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("\u5730" * 83 + ".json")  # 254 bytes of 255
    write_atomically(path, '{"a": 1}')
    assert json.loads(path.read_text()) == {"a": 1}


def test_a_storage_of_links_in_a_circle_is_named(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match="cannot be followed .*repair its symbolic links"):
        RunDirectory.of(str(tmp_path / "loop" / "x"), "job")
