"""The controller's decisions, with fake hosts and ranks and a virtual clock."""

import pytest

from orchestrator.engine.control.failures import (
    EndedEarly,
    Failure,
    FailureKind,
    GroupHangs,
    RanksStillRun,
    SchedulerLost,
)
from orchestrator.engine.control.generation import Phase
from orchestrator.engine.control.policy import Decision
from orchestrator.engine.messages import Heartbeat, NoticeKind
from orchestrator.telemetry import events
from orchestrator.telemetry.state import Process, RunState, read_state
from tests.unit.engine.bench import STEPPING, bench
from tests.unit.engine.fakes import (
    members,
)


def test_a_generation_is_recorded_from_its_start_to_its_end() -> None:
    made = bench()
    made.start("h0", "h1")
    made.ranks.all_beat(STEPPING)
    made.ticks(3)
    made.control.ended()
    assert made.record.names() == [
        "group_starting", "workers_started", "rank_joined", "rank_joined", "group_started",
    ]  # fmt: skip
    assert made.control.generation.phase is Phase.ENDED and made.ranks.killed
    assert made.control.generation.step == 5


def test_the_next_generation_starts_only_after_the_ranks_of_the_last_are_gone() -> None:
    made = bench()
    made.start("h0", "h1")
    made.control.ended()
    made.start("h0", "h1")
    assert made.cluster.fenced == [(100, 101)]
    assert made.record.names().index("fenced") < len(made.record.names()) - 5


def test_a_rank_that_survives_sigkill_stops_the_next_generation() -> None:
    made = bench()
    made.start("h0", "h1")
    made.control.ended()
    made.cluster.remaining = {1}
    with pytest.raises(RanksStillRun, match=r"ranks \[1\].*on h1"):
        made.control.starting(2)


def test_a_host_that_ray_gave_up_is_named_by_the_fence_and_does_not_stop_it() -> None:
    made = bench()
    made.start("h0", "h1")
    made.control.ended()
    made.cluster.unreachable = {"h1"}
    made.control.starting(2)
    assert made.last("fenced") == events.Fenced(ranks=(0, 1), unreachable=("h1",))


def test_ranks_that_a_killed_launch_left_are_fenced_before_the_first_generation() -> None:
    left = {"0": Process(host="h2", pid=77, started=15)}
    made = bench(RunState(generation=4, ranks=left))
    made.start("h0")
    assert made.cluster.fenced == [(77,)]
    assert made.control.generation.number == 5


def test_the_state_on_storage_names_the_processes_before_the_rendezvous() -> None:
    made = bench()
    made.control.starting(1)
    made.control.placed(members("h0"))
    assert read_state(made.storage).ranks == {"0": Process(host="h0", pid=100, started=0)}


def test_a_rank_that_falls_silent_is_a_hang_of_that_rank() -> None:
    made = bench(step_timeout_s=30.0)
    made.start("h0", "h1")
    made.ranks.all_beat(STEPPING)
    made.ticks(3)
    made.ranks.frozen = {1}
    with pytest.raises(GroupHangs) as caught:
        made.ticks(60)
    assert caught.value.rank == 1 and made.cluster.dumped == [1]
    assert made.last("hang_found") == events.HangFound(ranks=(1,), step=5, host="h1")


def test_ranks_that_make_no_step_are_a_hang_of_the_one_that_is_behind() -> None:
    made = bench(step_timeout_s=30.0)
    made.start("h0", "h1")
    stuck = {0: Heartbeat("stepping", 6, 31.0, steps_reported=True), 1: Heartbeat("stepping", 5, 31.0)}
    made.ranks.beats = stuck
    with pytest.raises(GroupHangs) as caught:
        made.ticks(3)
    assert caught.value.ranks == (1,)


def test_a_rank_that_returned_too_early_ends_the_run_without_waiting_for_the_others() -> None:
    made = bench()
    made.start("h0", "h1")
    made.ranks.beats = {0: STEPPING, 1: Heartbeat("finished", 2, 0.0, steps_reported=True)}
    with pytest.raises(EndedEarly, match=r"rank\(s\) \[1\] after step 2, and other ranks are at step 5"):
        made.ticks(3)


def test_a_function_that_reports_no_step_may_be_silent_for_hours() -> None:
    made = bench()
    made.start("h0")
    made.ranks.all_beat(Heartbeat(phase="compiling", since_s=3 * 3600.0))
    made.ranks.frozen = {0}
    made.ticks(200)
    made.clock.advance(4 * 3600.0)
    made.control.tick()
    assert "hang_found" not in made.record.names()


def test_a_function_that_reports_no_step_is_killed_for_silence_when_a_time_out_is_configured() -> None:
    made = bench(step_timeout_s=10.0)
    made.start("h0")
    made.ticks(2)
    made.ranks.frozen = {0}
    with pytest.raises(GroupHangs):
        made.ticks(30)


def test_a_slow_rank_is_reported_once_in_a_generation() -> None:
    made = bench()
    made.start("h0", "h1", "h2")
    made.ranks.beats = {
        rank: Heartbeat("stepping", 5, work_s=5.0 if rank == 2 else 1.0, steps_reported=True)
        for rank in range(3)
    }
    made.ticks(5)
    assert [e for e in made.record.events if e.name == "straggler"] == [
        events.Straggler(rank=2, host="h2", factor=5.0)
    ]


def test_a_lost_scheduler_is_reported_with_its_host() -> None:
    made = bench()
    made.start("h0", "h1")
    made.ranks.beats[0] = Heartbeat(scheduler_alive=False)
    with pytest.raises(SchedulerLost, match="h0"):
        made.ticks(3)


def test_a_drained_host_is_announced_to_all_ranks_once() -> None:
    made = bench()
    made.start("h0", "h1")
    made.ranks.all_beat(STEPPING)
    made.cluster.drained = {"node-h1": made.clock.time() + 31.0, "node-of-another-job": None}
    made.ticks(5)
    assert [(notice.kind, notice.ranks) for notice in made.ranks.notices] == [(NoticeKind.DRAIN, (1,))]
    assert made.last("drain_noticed") == events.DrainNoticed(hosts=("h1",), ranks=(1,), left_s=30.0)


def test_standbys_start_once_the_group_has_made_progress_for_five_seconds() -> None:
    made = bench()
    made.start("h0")
    made.ticks(20)
    assert made.pool.started == 0
    made.ranks.all_beat(STEPPING)
    made.ticks(4)
    assert made.pool.started == 0
    made.ticks(5)
    made.pool.ready = 2
    made.ticks(3)
    assert made.pool.started == 1
    assert made.last("standbys_ready") == events.StandbysReady(started=2)


def test_a_host_that_returns_later_gets_standbys_too() -> None:
    made = bench()
    made.start("h0")
    made.ranks.all_beat(STEPPING)
    made.ticks(8)
    made.pool.ready = 2
    made.ticks(3)
    before = made.pool.started
    made.ticks(10)
    assert made.pool.started == before + 1
    made.pool.ready = 1
    made.ticks(1)
    assert made.last("standbys_ready") == events.StandbysReady(started=1)


def test_a_failure_of_storage_waits_until_storage_is_back() -> None:
    made = bench()
    made.start("h0")
    made.storage.away = True

    def back() -> None:
        made.storage.away = False

    made.clock.at(20.0, back)
    assert made.control.failed(Failure(FailureKind.STORAGE, 0, "EIO")) is Decision.RESUME
    assert read_state(made.storage).attempts[0].kind == "storage"


def test_storage_that_stays_away_for_its_time_out_ends_the_run() -> None:
    made = bench(storage_timeout_s=60.0)
    made.start("h0")
    made.storage.away = True
    before = made.clock.now()
    assert made.control.failed(Failure(FailureKind.STORAGE, 0, "EIO")) is Decision.STOP
    assert made.clock.now() - before == pytest.approx(60.0, abs=1.0)
    assert made.last("giving_up") == events.GivingUp(reason="storage did not come back within 60 s")


def test_state_that_storage_refused_is_written_when_it_is_back() -> None:
    made = bench()
    made.storage.away = True
    made.start("h0")
    made.storage.away = False
    made.ticks(2)
    assert read_state(made.storage).generation == 1


def test_a_function_that_reports_no_step_has_nothing_to_save() -> None:
    made = bench()
    made.start("h0")
    made.ticks(2)
    assert made.control.leave() is False


def test_training_time_and_failures_are_counted_over_all_launches() -> None:
    made = bench(RunState(generation=1, trained_s=100.0, failures=3))
    made.start("h0")
    made.ranks.all_beat(STEPPING)
    made.ticks(11)
    made.control.ended()
    made.control.failed(Failure(FailureKind.RANK_CRASHED, 0, "x"))
    state = read_state(made.storage)
    assert state.failures == 4
    assert state.trained_s == pytest.approx(109.0, abs=1.5)


def test_what_killed_ranks_left_unfinished_is_removed_after_they_were_fenced_and_before_others_start() -> (
    None
):
    made = bench()
    made.start("h0", "h1")
    made.control.ended()
    made.storage.tidied.clear()
    made.start("h0", "h1")
    assert made.storage.tidied == ["checkpoints/"]
    made.storage.away = True
    made.control.ended()
    made.control.starting(2)  # it does not matter that storage is away: this only frees space
