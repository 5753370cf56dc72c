"""What people see while a job runs: its events, with bars on a terminal and plain lines elsewhere."""

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from orchestrator.report.lines import line_of
from orchestrator.storage import Storage, StorageError
from orchestrator.telemetry import events
from orchestrator.telemetry.event import Event, Recorded
from orchestrator.telemetry.record import EventReader, follow
from orchestrator.threads import start_without_signals


@contextmanager
def live_view(storage: Storage, console: Console) -> Iterator[None]:
    """Show the run's events from now on, until the block ends.

    While storage is away nothing is shown. If it is away at the start, earlier events are shown once it is back.
    """
    stop, reader = threading.Event(), EventReader(storage)
    with contextlib.suppress(StorageError):
        reader.new()
    show = _with_bars if console.is_terminal else _plainly
    thread = threading.Thread(target=show, args=(follow(storage, stop, reader), console), name="live view")
    start_without_signals(thread)
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _plainly(recorded: Iterator[Recorded], console: Console) -> None:
    for one in recorded:
        text = _progress_line(one.event) or line_of(one.event)
        if text:
            clock = time.strftime("%H:%M:%S", time.localtime(one.t))
            console.print(f"{clock} {text}", markup=False, emoji=False, highlight=False, soft_wrap=True)


def _progress_line(event: Event) -> str | None:
    """Progress that a terminal shows as a bar."""
    counted = _counted(event)
    return None if counted is None else f"{counted[0]} {counted[1]}/{counted[2]} {counted[3]}".rstrip()


def _with_bars(recorded: Iterator[Recorded], console: Console) -> None:
    columns = (
        TextColumn("{task.description:>10}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    bars: dict[str, TaskID] = {}
    with Progress(*columns, console=console) as progress:
        for one in recorded:
            counted = _counted(one.event)
            if counted is not None:
                name, done, total, note = counted
                if name not in bars:
                    bars[name] = progress.add_task(name, note="")
                progress.update(bars[name], completed=done, total=total, note=note)
            text = line_of(one.event)
            if text:
                progress.console.print(text, markup=False, emoji=False, highlight=False)


def _counted(event: Event) -> tuple[str, int, int, str] | None:
    """Name, how many are done, of how many, and a note; None for events that count nothing."""
    match event:
        case events.ShardDone(done=done, shards=shards, pairs_per_s=rate):
            return "shards", done, shards, f"{rate:.0f} pairs/s"
        case events.Progress(step=step, steps=int(steps)):
            return "steps", step, steps, ""
    return None
