"""The live view shows new events, as lines or as bars, and survives unavailable storage."""

import io
import re
import threading

from rich.console import Console

from orchestrator.report.live import live_view
from orchestrator.telemetry.event import Event
from orchestrator.telemetry.events import Compiled, FirstStep, GivingUp, GroupStarting, Progress, ShardDone
from orchestrator.telemetry.record import EventWriter
from tests.unit.engine.fakes import MemoryStorage
from tests.unit.histories import record

SHARD = ShardDone(shard="s", patches=4, skipped=0, done=3, shards=8, pairs_per_s=12.4)


def shown(storage: MemoryStorage, *events: Event, terminal: bool = False) -> list[str]:
    """The lines of a view that begins now, while these events happen."""
    page = io.StringIO()
    with live_view(storage, Console(file=page, force_terminal=terminal, width=100)):
        record(storage, *events)
    return page.getvalue().splitlines()


def test_only_events_from_now_on_are_shown_each_with_its_time() -> None:
    storage = MemoryStorage()
    record(storage, FirstStep(step=1))
    lines = shown(
        storage,
        FirstStep(step=2),
        Compiled(seconds=1.0, cached=False),
        GroupStarting(generation=2, world_size=1),
    )
    assert [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in lines] == [
        "first step done (step 2)",
        "group 2: starting 1 rank(s)",
    ]
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines)


def test_progress_is_a_line_where_there_is_no_terminal() -> None:
    lines = shown(MemoryStorage(), SHARD, Progress(step=3, steps=20), Progress(step=4))
    assert [line.partition(" ")[2] for line in lines] == ["shards 3/8 12 pairs/s", "steps 3/20"]


def test_progress_is_a_bar_on_a_terminal_with_the_other_events_above_it() -> None:
    page = "\n".join(shown(MemoryStorage(), SHARD, FirstStep(step=2), terminal=True))
    assert "first step done (step 2)" in page
    assert re.search(r"shards.*3/8.*12 pairs/s", page)


def test_a_view_continues_when_storage_returns() -> None:
    storage, page, refused = MemoryStorage(), io.StringIO(), threading.Event()

    class Counting(MemoryStorage):
        """Lets the test see that the view has read while storage was unavailable."""

        def list(self, prefix: str) -> list[str]:
            if storage.away:
                refused.set()
            return storage.list(prefix)

        def get(self, name: str) -> bytes:
            return storage.get(name)

    with live_view(Counting(), Console(file=page, width=100)):
        storage.away = True
        with EventWriter(storage) as writer:
            writer.record(FirstStep(step=7))
            assert refused.wait(10)
            storage.away = False
    assert "first step done (step 7)" in page.getvalue()


def test_a_view_can_start_while_storage_is_unavailable() -> None:
    storage, page = MemoryStorage(), io.StringIO()
    storage.away = True
    with live_view(storage, Console(file=page, width=100)):
        storage.away = False
        record(storage, FirstStep(step=7))
    assert "first step done (step 7)" in page.getvalue()


def test_what_events_say_is_never_read_as_markup() -> None:
    reason = "[/] [red]:key:"
    [line] = shown(MemoryStorage(), GivingUp(reason=reason))
    assert line.endswith(f"giving up: {reason}")
