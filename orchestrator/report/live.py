"""What people see while a job runs: its events, with bars on a terminal and plain lines elsewhere."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from orchestrator.events import EventLog
from sdnet.errors import InputError

Event = dict[str, Any]

_POLL_S = 0.3


def line_of(event: Event) -> str | None:
    """One plain line for a person, or None for events that only tools need."""
    describe = _LINES.get(event["event"])
    if describe is None:
        return None
    try:
        return describe(event)
    except (LookupError, TypeError, ValueError, AttributeError):  # another version's event: as it is
        return all_fields_of(event)


def all_fields_of(event: Event) -> str:
    """The event's name and its fields, in no special form."""
    fields = ", ".join(f"{name} {value}" for name, value in event.items() if name not in ("t", "event"))
    return f"{event['event']}: {fields}"


def _epoch_line(event: Event) -> str:
    rates = f", FPR95 {event['fpr95']:.4f}, accuracy {event['accuracy']:.4f}" if "fpr95" in event else ""
    steps = f"{event['steps']} steps in {event['seconds']:.1f} s"
    return f"epoch {event['epoch']}: loss {event['loss']:.4f}, {steps}{rates}"


def _failure_line(event: Event) -> str:
    where = f" rank {event['rank']}" if event.get("rank") is not None else ""
    host = f" on {event['host']}" if event.get("host") else ""
    return f"failure: {event['kind']}{where}{host}: {event.get('detail', '')}"


def _ended_line(event: Event) -> str:
    """Which stacks were saved, and what went wrong at which rank."""
    wrong = [
        f"; rank {rank['rank']}: {rank['problem'] or 'still there'}"
        for rank in event["ranks"]
        if rank["problem"] or not rank["gone"]
    ]
    return f"group {event['generation']} ended, stacks in logs/stacks.{event['generation']}/{''.join(wrong)}"


_LINES: dict[str, Callable[[Event], str]] = {
    "run_restarted": lambda e: f"begun again at step 1; the earlier run is in {e['moved_to']}/",
    "stage_started": lambda e: f"{e['stage']}: started",
    "stage_finished": lambda e: f"{e['stage']}: done",
    "group_starting": lambda e: f"group {e['generation']}: starting {e['world_size']} rank(s)",
    "group_started": lambda e: (
        f"group {e['generation']}: {e['world_size']} rank(s) on {', '.join(e['hosts'])}"
    ),
    "first_step": lambda e: f"first step done (step {e['step']})",
    "epoch": _epoch_line,
    "hang_found": lambda e: f"rank(s) {e['ranks']} hang at step {e['step']}",
    "group_ended": _ended_line,
    "drain_noticed": lambda e: f"{', '.join(e['hosts'])} goes away, with rank(s) {e['ranks']}: saving first",
    "leaving": lambda e: f"the launch ends: {e['ranks']} rank(s) save first",
    "straggler": lambda e: f"rank {e['rank']} on {e['host']} is {e['factor']} times slower than the others",
    "failure_detected": _failure_line,
    "group_restarting": lambda e: f"restarting the group: {e.get('reason', '')}",
    "checkpoint_corrupt": lambda e: f"checkpoint {e['checkpoint']} is corrupt: {e['detail']}",
    "fault_injected": lambda e: f"drill: {e['fault']} at rank {e['rank']} on {e['host']}: {e['proof']}",
    "host_returned": lambda e: f"drill: {e['host']} is back{': ' * bool(e['problem'])}{e['problem']}",
    "checkpoint_failed": lambda e: f"checkpoint at step {e['step']} was not written: {e['detail']}",
}


@contextmanager
def live_view(events: EventLog, console: Console) -> Iterator[None]:
    """Show the run's events from now on, until the block ends."""
    stop = threading.Event()
    _, position = events.read_from(0)
    show = _with_bars if console.is_terminal else _plainly
    thread = threading.Thread(target=show, args=(follow(events, stop, position), console), name="live view")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def follow(events: EventLog, stop: threading.Event, position: int = 0) -> Iterator[Event]:
    """Events as they are written, from byte `position`; ends when `stop` is set and all are read."""
    while True:
        ending = stop.is_set()
        try:
            new, position = events.read_from(position)
        except (OSError, InputError):
            new = []  # storage is away, or something else lies there: the events may come back
        yield from new
        if ending:
            return
        stop.wait(_POLL_S)


def _plainly(events: Iterator[Event], console: Console) -> None:
    for event in events:
        text = _progress_line(event) or line_of(event)
        if text:
            clock = time.strftime("%H:%M:%S", time.localtime(event["t"]))
            console.print(f"{clock} {text}", markup=False, highlight=False, soft_wrap=True)


def _progress_line(event: Event) -> str | None:
    """Progress that a terminal shows as a bar."""
    counted = _counted(event)
    return None if counted is None else f"{counted[0]} {counted[1]}/{counted[2]} {counted[3]}".rstrip()


def _with_bars(events: Iterator[Event], console: Console) -> None:
    columns = (
        TextColumn("{task.description:>10}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    bars: dict[str, TaskID] = {}
    with Progress(*columns, console=console) as progress:
        for event in events:
            counted = _counted(event)
            if counted is not None:
                name, done, total, note = counted
                if name not in bars:
                    bars[name] = progress.add_task(name, note="")
                progress.update(bars[name], completed=done, total=total, note=note)
            text = line_of(event)
            if text:
                progress.console.print(text, markup=False, highlight=False)


def _counted(event: Event) -> tuple[str, int, int, str] | None:
    """Name, how many are done, of how many, and a note; None for events that count nothing."""
    if event["event"] == "shard_done":
        return "shards", event["done"], event["shards"], f"{event.get('pairs_per_s', 0):.0f} pairs/s"
    if event["event"] == "progress" and "steps" in event:
        return "steps", event["step"], event["steps"], ""
    return None
