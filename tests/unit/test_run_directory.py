"""The run directory: small files are whole or absent, events are never mixed or half read."""

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from orchestrator.events import EventLog
from orchestrator.run_directory import RunDirectory, write_atomically, write_json
from sdnet.errors import InputError


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
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


def test_events_of_many_writers_never_mix(tmp_path: Path) -> None:
    events = EventLog(tmp_path / "events.jsonl")

    def write(writer: int) -> None:
        for number in range(100):
            events.emit("tried", writer=writer, number=number, filler="x" * 200)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    read = events.read()
    assert len(read) == 400
    for writer in range(4):
        assert [event["number"] for event in read if event["writer"] == writer] == list(range(100))


def test_a_half_written_last_line_is_not_read_and_a_broken_one_is_passed_over(tmp_path: Path) -> None:
    events = EventLog(tmp_path / "events.jsonl")
    assert events.read() == []
    events.emit("run_started", name="x")
    with events.path.open("a") as file:
        file.write('{"t": 1, "event": "cut of\n{"t": 2, "event": "first_step", "step": 1}\n{"t": 3, "ev')
    assert [event["event"] for event in events.read()] == ["run_started", "first_step"]


def test_an_event_with_a_number_that_json_lacks_is_refused(tmp_path: Path) -> None:
    events = EventLog(tmp_path / "events.jsonl")
    with pytest.raises(ValueError, match="not JSON compliant"):
        events.emit("epoch", loss=float("nan"))
    assert events.read() == []


@pytest.mark.parametrize(("mask", "mode"), [(0o002, 0o664), (0o077, 0o600)])
def test_files_of_a_run_have_the_mode_that_the_umask_gives(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_json(tmp_path / "summary.json", {})
        EventLog(tmp_path / "events.jsonl").emit("run_started", name="x")
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()] == [mode, mode]


def test_a_name_of_the_longest_kind_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("\u5730" * 83 + ".json")  # 254 bytes of 255
    write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}


def test_a_storage_of_links_in_a_circle_is_named(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match="cannot be followed .*repair its symbolic links"):
        RunDirectory.of(str(tmp_path / "loop" / "x"), "job")
