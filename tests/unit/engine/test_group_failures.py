"""What the controller decides after a failure, with fake hosts and a virtual clock."""

import pytest

from orchestrator.engine.control.failures import (
    Failure,
    FailureKind,
)
from orchestrator.engine.control.policy import Decision
from orchestrator.telemetry.state import read_state
from tests.unit.engine.bench import bench


def test_a_crashed_rank_is_a_lost_host_when_ray_says_so_within_its_patience() -> None:
    made = bench()
    made.start("h0", "h1")
    made.clock.at(3.0, lambda: made.cluster.alive.remove("h1"))
    assert made.control.failed(Failure(FailureKind.RANK_UNREACHABLE, 1, "gone")) is Decision.RESUME
    assert made.last("failure_detected").kind == "host_lost"  # type: ignore[attr-defined]


def test_an_unreachable_rank_on_a_living_host_has_crashed() -> None:
    made = bench()
    made.start("h0", "h1")
    before = made.clock.now()
    made.control.failed(Failure(FailureKind.RANK_UNREACHABLE, 1, "gone"))
    assert made.last("failure_detected").kind == "rank_crashed"  # type: ignore[attr-defined]
    assert made.clock.now() - before == pytest.approx(8.0, abs=0.2)


def test_a_start_that_failed_because_a_host_died_is_a_lost_host_and_names_it() -> None:
    made = bench()
    made.start("h0", "h1")
    made.cluster.alive.remove("h1")
    assert made.control.failed(Failure(FailureKind.START_FAILED, None, "not joined")) is Decision.RESUME
    detected = made.last("failure_detected")
    assert (detected.kind, detected.rank, detected.host) == ("host_lost", 1, "h1")  # type: ignore[attr-defined]


def test_a_start_that_failed_on_living_hosts_stays_a_failed_start() -> None:
    made = bench()
    made.start("h0", "h1")
    made.control.failed(Failure(FailureKind.START_FAILED, None, "not joined"))
    assert made.last("failure_detected").kind == "start_failed"  # type: ignore[attr-defined]


def test_each_kind_of_failure_has_its_own_budget() -> None:
    made = bench(max_failures=2)
    for kind in (FailureKind.HANG, FailureKind.RANK_CRASHED, FailureKind.HANG, FailureKind.RANK_CRASHED):
        made.start("h0")
        assert made.control.failed(Failure(kind, 0, "x")) is Decision.RESUME
        made.control.ended()
    made.start("h0")
    assert made.control.failed(Failure(FailureKind.HANG, 0, "x")) is Decision.STOP
    assert "3 times hang" in (read_state(made.storage).ended or "")


def test_preemptions_are_never_counted() -> None:
    made = bench(max_failures=0)
    for _ in range(30):
        made.start("h0")
        assert made.control.failed(Failure(FailureKind.PREEMPTED, 0, "x")) is Decision.RESUME
        made.control.ended()
    assert read_state(made.storage).failures == 0


def test_the_same_error_at_the_same_step_stops_the_run_and_elsewhere_does_not() -> None:
    made = bench()
    for step, decision in ((3, Decision.RESUME), (4, Decision.RESUME), (4, Decision.STOP)):
        made.start("h0")
        assert made.control.failed(Failure(FailureKind.STEP_FAILED, 0, "bug", step=step)) is decision
        made.control.ended()


def test_a_checkpoint_that_a_rank_could_not_read_is_avoided_by_all_ranks_of_the_next_generation() -> None:
    made = bench()
    made.start("h0", "h1")
    failure = Failure(FailureKind.CORRUPT_CHECKPOINT, 1, "unreadable", checkpoint="step_00000010")
    assert made.control.failed(failure) is Decision.RESUME
    assert made.control.avoid == {"step_00000010"}
