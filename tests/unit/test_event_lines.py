"""Events as people read them: one line each, in `logs`, in the live view and in the report."""

import pytest
from hypothesis import given

from orchestrator.report.lines import all_fields_of, line_of
from orchestrator.telemetry import events
from orchestrator.telemetry.event import Event, UnknownEvent
from tests.unit.histories import epoch, events_of_every_schema

STUCK = events.RankEnd(0, "", "py-spy was not permitted", True)
ALIVE = events.RankEnd(1, "logs/stacks.2/rank_1.txt", "", False)
FAULT = events.FaultInjected(
    number=1, fault="freeze", generation=1, step=5, rank=1, host="h", at=1.0, proof="process 7 is stopped"
)
LINES: list[tuple[Event, str]] = [
    (events.RunRestarted(moved_to="before_restart.1"),
     "restarted from step 1; the earlier run is in before_restart.1/"),
    (events.StageStarted(stage="train"), "train: started"),
    (events.StageFinished(stage="train", seconds=2.0), "train: done"),
    (events.ShardLost(shard="s1", times=2, reason="out of memory"),
     "shard s1 was lost, 2 time(s) so far: out of memory"),
    (events.Leaving(ranks=2), "stopping: 2 rank(s) save first"),
    (events.EventsLost(count=3), "3 event(s) are missing here: storage was away for too long"),
    (events.GroupStarting(generation=1, world_size=2), "group 1: starting 2 rank(s)"),
    (events.GroupStarted(generation=1, world_size=2, hosts=("a", "b")), "group 1: 2 rank(s) on a, b"),
    (events.Straggler(rank=1, host="h", factor=2.5),
     "rank 1 on h needs 2.5 times as long for a step as the other ranks"),
    (events.HangFound(ranks=(1, 3), step=7, host="h"), "rank(s) 1, 3 hang at step 7"),
    (events.GroupEnded(generation=2, ranks=()), "group 2 was killed, stacks in logs/stacks.2/"),
    (events.GroupEnded(generation=2, ranks=(STUCK, ALIVE)),
     "group 2 was killed, stacks in logs/stacks.2/; rank 0: py-spy was not permitted; rank 1: still there"),
    (events.DrainNoticed(hosts=("h",), ranks=(2, 3), left_s=20.0),
     "h will go away with rank(s) 2, 3; the group saves first"),
    (events.LeftoversEnded(host="h", pids=(7,)), "killed processes of an earlier group on h: 7"),
    (events.FailureDetected(kind="hang", rank=1, host="h", detail="silent for 9 s"),
     "failure: hang rank 1 on h: silent for 9 s"),
    (events.FailureDetected(kind="storage", detail="gone"), "failure: storage: gone"),
    (events.GroupRestarting(reason="failure 1 of 10"), "restarting the group: failure 1 of 10"),
    (events.GivingUp(reason="too many"), "giving up: too many"),
    (events.FirstStep(step=1), "first step done (step 1)"),
    (epoch(2, 6), "epoch 2: loss 0.5000, 3 steps in 1.5 s"),
    (epoch(2, 6, fpr95=0.25, accuracy=0.9),
     "epoch 2: loss 0.5000, 3 steps in 1.5 s, FPR95 0.2500, accuracy 0.9000"),
    (events.CheckpointFailed(step=4, detail="no space"), "checkpoint at step 4 was not written: no space"),
    (events.CheckpointCorrupt(checkpoint="step_00000004", detail="model.ckpt is missing"),
     "checkpoint step_00000004 is corrupt: model.ckpt is missing"),
    (FAULT, "drill: freeze at rank 1 on h: process 7 is stopped"),
    (events.HostReturned(number=1, host="h", problem=""), "drill: h is back"),
    (events.HostReturned(number=1, host="h", problem="no Ray"), "drill: h is not back: no Ray"),
    (events.HostMissing(number=1, host="h", waited_s=240.0),
     "drill: Ray did not list h again within 240 s"),
    (UnknownEvent(event="fenced", fields={"host": "h", "pids": [3]}), "fenced: host h, pids [3]"),
]  # fmt: skip


@pytest.mark.parametrize(("event", "line"), LINES, ids=[event.name for event, _ in LINES])
def test_an_event_is_one_line(event: Event, line: str) -> None:
    assert line_of(event) == line


@pytest.mark.parametrize(
    "event", [events.Compiled(seconds=1.0, cached=True), UnknownEvent(event="from_the_future", fields={})]
)
def test_events_for_tools_have_no_line_but_can_be_shown_with_their_fields(event: Event) -> None:
    assert line_of(event) is None


def test_all_fields_are_shown_by_name() -> None:
    assert all_fields_of(events.Compiled(seconds=1.0, cached=True)) == "compiled: seconds 1.0, cached True"
    assert all_fields_of(UnknownEvent(event="x", fields={"a": 1})) == "x: a 1"


@given(event=events_of_every_schema())
def test_every_event_can_be_shown(event: Event) -> None:
    assert line_of(event) != "" and all_fields_of(event).startswith(f"{event.name}: ")
