"""A log is a regular file: never the target of a link, never a pipe without a reader."""

import os
from pathlib import Path

import pytest

from orchestrator.engine.host.log_files import open_log


def test_a_log_is_appended_to_and_emptied_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for line in (b"one\n", b"two\n"):
        with open_log(path) as log:
            log.write(line)
    assert path.read_bytes() == b"one\ntwo\n"
    with open_log(path, empty=True) as log:
        log.write(b"three\n")
    assert path.read_bytes() == b"three\n"


def test_a_link_and_a_fifo_are_refused_and_the_target_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"mine")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo"):
        with pytest.raises(OSError):
            open_log(tmp_path / name, empty=True)
    assert (tmp_path / "target").read_bytes() == b"mine"
