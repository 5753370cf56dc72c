"""Events as plain lines for people: the live view, `logs` and the report print the same ones."""

import dataclasses
from collections.abc import Iterable

from orchestrator.telemetry import events
from orchestrator.telemetry.event import Event, UnknownEvent
from orchestrator.telemetry.record import SCHEMAS


def line_of(event: Event) -> str | None:
    """One line for a person, or None for an event that only tools need."""
    return _run_line(event) or _group_line(event) or _training_line(event) or _drill_line(event)


def all_fields_of(event: Event) -> str:
    """The event's name and all of its fields."""
    if isinstance(event, UnknownEvent):
        name, fields = event.event, event.fields
    else:
        name, fields = event.name, dataclasses.asdict(event)
    return f"{name}: {', '.join(f'{field} {value}' for field, value in fields.items())}"


def _run_line(event: Event) -> str | None:
    match event:
        case events.RunRestarted(moved_to=folder):
            return f"restarted from step 1; the earlier run is in {folder}/"
        case events.StageStarted(stage=stage):
            return f"{stage}: started"
        case events.StageFinished(stage=stage):
            return f"{stage}: done"
        case events.ShardLost(shard=shard, times=times, reason=reason):
            return f"shard {shard} was lost, {times} time(s) so far: {reason}"
        case events.Leaving(ranks=ranks):
            return f"stopping: {ranks} rank(s) save first"
        case events.EventsLost(count=count):
            return f"{count} event(s) are missing here: storage was away for too long"
        case UnknownEvent(event=name) if name in SCHEMAS:
            return all_fields_of(event)  # another version's form of an event that we know
    return None


def _group_line(event: Event) -> str | None:
    match event:
        case events.GroupStarting(generation=generation, world_size=size):
            return f"group {generation}: starting {size} rank(s)"
        case events.GroupStarted(generation=generation, world_size=size, hosts=hosts):
            return f"group {generation}: {size} rank(s) on {', '.join(hosts)}"
        case events.Straggler(rank=rank, host=host, factor=factor):
            return f"rank {rank} on {host} needs {factor} times as long for a step as the other ranks"
        case events.HangFound(ranks=ranks, step=step):
            return f"rank(s) {_listed(ranks)} hang at step {step}"
        case events.GroupEnded():
            return _ended_line(event)
        case events.DrainNoticed(hosts=hosts, ranks=ranks):
            return f"{', '.join(hosts)} will go away with rank(s) {_listed(ranks)}; the group saves first"
        case events.LeftoversEnded(host=host, pids=pids):
            return f"killed processes of an earlier group on {host}: {_listed(pids)}"
        case events.FailureDetected():
            return _failure_line(event)
        case events.GroupRestarting(reason=reason):
            return f"restarting the group: {reason}"
        case events.GivingUp(reason=reason):
            return f"giving up: {reason}"
    return None


def _training_line(event: Event) -> str | None:
    match event:
        case events.FirstStep(step=step):
            return f"first step done (step {step})"
        case events.Epoch():
            return _epoch_line(event)
        case events.CheckpointFailed(step=step, detail=detail):
            return f"checkpoint at step {step} was not written: {detail}"
        case events.CheckpointCorrupt(checkpoint=checkpoint, detail=detail):
            return f"checkpoint {checkpoint} is corrupt: {detail}"
    return None


def _drill_line(event: Event) -> str | None:
    match event:
        case events.FaultInjected(fault=fault, rank=rank, host=host, proof=proof):
            return f"drill: {fault} at rank {rank} on {host}: {proof}"
        case events.HostReturned(host=host, problem=""):
            return f"drill: {host} is back"
        case events.HostReturned(host=host, problem=problem):
            return f"drill: {host} is not back: {problem}"
        case events.HostMissing(host=host, waited_s=waited_s):
            return f"drill: Ray did not list {host} again within {waited_s:.0f} s"
    return None


def _epoch_line(epoch: events.Epoch) -> str:
    rates = ""
    if epoch.fpr95 is not None and epoch.accuracy is not None:
        rates = f", FPR95 {epoch.fpr95:.4f}, accuracy {epoch.accuracy:.4f}"
    steps = f"{epoch.steps} steps in {epoch.seconds:.1f} s"
    return f"epoch {epoch.epoch}: loss {epoch.loss:.4f}, {steps}{rates}"


def _failure_line(failure: events.FailureDetected) -> str:
    rank = "" if failure.rank is None else f" rank {failure.rank}"
    host = f" on {failure.host}" if failure.host else ""
    return f"failure: {failure.kind}{rank}{host}: {failure.detail}"


def _ended_line(ended: events.GroupEnded) -> str:
    """Where the stacks are, and at which ranks something went wrong."""
    wrong = [
        f"; rank {rank.rank}: {rank.problem or 'still there'}"
        for rank in ended.ranks
        if rank.problem or not rank.gone
    ]
    stacks = f"logs/stacks.{ended.generation}/"
    return f"group {ended.generation} was killed, stacks in {stacks}{''.join(wrong)}"


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(str(number) for number in numbers)
