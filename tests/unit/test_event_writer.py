"""A writer of events loses none and writes none twice while storage is away, full, or replies too late."""

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.storage import DirectoryStorage, RunLost
from orchestrator.telemetry.event import Event
from orchestrator.telemetry.events import FirstStep
from orchestrator.telemetry.record import EventReader, EventWriter, merge_events
from tests.failing_files import Fault, failing_files
from tests.storage_mounts import Mount, Server
from tests.unit.engine.fakes import MemoryStorage


def test_events_wait_in_memory_while_storage_is_unavailable() -> None:
    storage = MemoryStorage()
    storage.away = True
    with EventWriter(storage) as writer:
        for step in range(5):
            writer.record(FirstStep(step=step))
        assert not writer.flush()
        storage.away = False
    assert [r.event for r in EventReader(storage).read()] == [FirstStep(step=step) for step in range(5)]


def test_a_gap_is_marked_when_storage_was_unavailable_for_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.telemetry.record._MOST_LINES", 3)
    storage = MemoryStorage()
    storage.away = True
    with EventWriter(storage) as writer:
        for step in range(5):
            writer.record(FirstStep(step=step))
        storage.away = False
    found = [recorded.event for recorded in EventReader(storage).read()]
    assert [event.name for event in found] == ["events_lost", "first_step", "first_step", "first_step"]
    assert found[0].count == 2  # type: ignore[attr-defined]


def test_what_is_recorded_while_a_refused_segment_is_retried_goes_to_the_next_segment() -> None:
    """The refused segment may exist if only the reply was lost; a follower reads it only once."""
    server = Server()
    mount = Mount(server, lost_replies=1)
    reader = EventReader(Mount(server))
    with EventWriter(mount, wait=server.clock.wait) as writer:
        writer.record(FirstStep(step=1))
        while not reader.new():
            writer.flush()
        writer.record(FirstStep(step=2))
    assert [recorded.event for recorded in reader.new()] == [FirstStep(step=2)]
    assert [recorded.event for recorded in EventReader(Mount(server)).read()] == [
        FirstStep(step=1), FirstStep(step=2),
    ]  # fmt: skip


STEPS = st.lists(
    st.sampled_from(["record", "flush", "fail", "lose a reply", "go away", "return"]), max_size=25
)


@settings(deadline=None)
@given(steps=STEPS, lag_s=st.sampled_from([0.0, 3.0]))
def test_no_event_is_lost_or_doubled_on_a_mount_that_fails_and_loses_replies(
    steps: list[str], lag_s: float
) -> None:
    server = Server()
    mount = Mount(server)
    expected: list[FirstStep] = []
    seen: list[Event] = []
    reader = EventReader(Mount(server, lag_s=lag_s))
    with EventWriter(mount, wait=server.clock.wait) as writer:
        for step in steps:
            match step:
                case "record":
                    expected.append(FirstStep(step=len(expected)))
                    writer.record(expected[-1])
                case "flush":
                    writer.flush()
                    server.clock.advance(1.0)
                    seen += [recorded.event for recorded in reader.new()]
                case "fail":
                    mount.failing += 1
                case "lose a reply":
                    mount.lost_replies += 1
                case _:
                    mount.away = step == "go away"
        mount.away, mount.failing, mount.lost_replies = False, 0, 0
    server.clock.advance(lag_s)
    seen += [recorded.event for recorded in reader.new()]
    assert seen == expected
    merge_events(mount)
    assert [recorded.event for recorded in EventReader(mount).read()] == expected


def test_a_disk_that_is_full_at_close_costs_no_event_and_makes_no_unreadable_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage = DirectoryStorage(tmp_path)
    with failing_files(tmp_path) as files, EventWriter(storage) as writer:
        for step in range(3):
            # mkdir, open, close: the error of a full disk comes at close on network mounts.
            files.faults = [Fault.NONE, Fault.NONE, Fault.LATE]
            writer.record(FirstStep(step=step))
            while files.faults:
                writer.flush()
    assert [r.event for r in EventReader(storage).read()] == [FirstStep(step=step) for step in range(3)]
    assert not [message for message in caplog.messages if "skipped" in message]


def test_closing_waits_a_moment_for_storage_and_says_what_was_not_written(
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = MemoryStorage()
    pauses: list[float] = []
    storage.away = True
    with EventWriter(storage, wait=pauses.append) as writer:
        for step in range(3):
            writer.record(FirstStep(step=step))
    assert 3.0 < sum(pauses) < 5.0 and "3 event(s) were not written" in caplog.messages


def test_a_writer_whose_launch_lost_the_run_writes_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    storage, lost = MemoryStorage(), threading.Event()

    def guard() -> None:
        if lost.is_set():
            raise RunLost("/runs/j", "process 4 on h7")

    with EventWriter(storage, guard=guard) as writer:
        writer.record(FirstStep(step=1))
        assert writer.flush()
        lost.set()
        writer.record(FirstStep(step=2))
        assert writer.flush()
        writer.record(FirstStep(step=3))
    assert [r.event for r in EventReader(storage).read()] == [FirstStep(step=1)]
    assert any("events are not written any more: lost the run /runs/j" in text for text in caplog.messages)
