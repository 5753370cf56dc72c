"""Events outlive storage that is away or full: none is lost, none comes twice, and their order stays."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.events import EventLog
from tests.disk import fill, small_disk


def steps(events: EventLog) -> list[int]:
    return [event["step"] for event in events.read()]


def test_events_wait_for_storage_that_is_away_and_come_in_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage = tmp_path / "storage"
    storage.mkdir()
    events = EventLog(storage / "events.jsonl")
    events.emit("progress", step=1)
    storage.rename(tmp_path / "away")
    with caplog.at_level(logging.WARNING):
        for step in (2, 3):
            events.emit("progress", step=step)
    assert events.read() == [] and not storage.exists()
    (tmp_path / "away").rename(storage)
    events.emit("progress", step=4)
    assert steps(events) == [1, 2, 3, 4]
    [warning] = caplog.messages
    assert str(events.path) in warning and "wait in memory" in warning


def test_a_process_that_ends_writes_what_waits(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from orchestrator.events import EventLog
storage = Path(sys.argv[1])
EventLog(storage / "events.jsonl").emit("progress", step=1)
storage.mkdir()
"""
    storage = tmp_path / "storage"
    subprocess.run([sys.executable, "-c", program, str(storage)], check=True)
    assert steps(EventLog(storage / "events.jsonl")) == [1]


def test_a_follower_does_not_begin_again_when_storage_was_away(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    storage.mkdir()
    events = EventLog(storage / "events.jsonl")
    events.emit("progress", step=1)
    _, position = events.read_from(0)
    storage.rename(tmp_path / "away")
    assert events.read_from(position) == ([], position)
    (tmp_path / "away").rename(storage)
    events.emit("progress", step=2)
    assert [event["step"] for event in events.read_from(position)[0]] == [2]


def test_a_full_disk_cuts_no_event_that_is_read(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        events = EventLog(disk / "events.jsonl")
        events.emit("progress", step=0)
        filler = fill(disk)
        # The page that the file has begun still takes some, the last of them cut.
        for step in range(1, 100):
            events.emit("progress", step=step, filler="x" * 100)
        assert 1 < len(steps(events)) < 99 and not events.path.read_bytes().endswith(b"\n")
        filler.unlink()
        events.emit("progress", step=100)
        assert steps(events) == list(range(101))


def test_a_link_that_was_planted_in_its_place_is_not_written_through(tmp_path, caplog):
    (tmp_path / "events.jsonl").symlink_to(tmp_path / "target")
    EventLog(tmp_path / "events.jsonl").emit("epoch", epoch=1)
    assert not (tmp_path / "target").exists()
    assert "Too many levels of symbolic links" in caplog.text
    (tmp_path / "events.jsonl").unlink()
