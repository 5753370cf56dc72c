"""What a drill decides, does and reads: which faults, in which order, and what each cost."""

from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli.program import app
from orchestrator.drill.faults import Damage, Fault, Planned, parse_faults, plan_faults, reasons_against
from orchestrator.drill.outcome import (
    fault_report,
    goodput,
    mean_step_s,
    recovered_at,
    stepping_group,
    waited_for_host,
    was_made,
)
from orchestrator.telemetry.event import Recorded
from orchestrator.telemetry.events import (
    CheckpointCorrupt,
    CheckpointSaved,
    FailureDetected,
    FaultInjected,
    FirstStep,
    GroupStarted,
    GroupStarting,
    HostMissing,
    HostReturned,
    StageFinished,
    StageStarted,
)
from orchestrator.telemetry.state import Process, RunState
from sdnet.errors import InputError
from tests.unit.histories import epoch, recorded

CORRUPT = "step_00000005"


def generation(number: int, t: float, step: int) -> list[Recorded]:
    """The events of a group of two that has done its first step."""
    return recorded(
        (t, GroupStarting(generation=number, world_size=2)),
        (t + 3, GroupStarted(generation=number, world_size=2, hosts=("a", "b"))),
        (t + 9, FirstStep(step=step)),
    )


def state_of(number: int) -> RunState:
    """The state of the run while a group of two runs."""
    ranks = {str(rank): Process(host="ab"[rank], pid=10 * number + rank, started=rank) for rank in (0, 1)}
    return RunState(generation=number, ranks=ranks)


def failure(t: float, number: int, kind: str) -> Recorded:
    return Recorded(t, FailureDetected(kind=kind, rank=1, host="b", generation=number, step=5))


def injected(t: float, at: float, fault: Fault, checkpoint: str | None = None) -> Recorded:
    event = FaultInjected(
        number=1, fault=fault.value, rank=1, host="b", step=5, generation=1, at=at, proof="seen",
        checkpoint=checkpoint,
    )  # fmt: skip
    return Recorded(t, event)


def saved(t: float, step: int) -> Recorded:
    return Recorded(t, CheckpointSaved(step=step, checkpoint=f"step_{step:08d}", stall_s=0.0, save_s=0.0))


def returned(t: float, problem: str = "", note: str = "") -> Recorded:
    return Recorded(t, HostReturned(number=1, host="b", problem=problem, note=note))


def planned(fault: Fault) -> Planned:
    return Planned(1, fault, 5, 0.0, Damage.TRUNCATE)


def test_a_list_of_faults_is_read_in_its_order_and_each_once() -> None:
    assert parse_faults("freeze, kill-rank,freeze") == (Fault.FREEZE, Fault.KILL_RANK)


def test_one_machine_cannot_lose_a_host_and_an_only_checkpoint_cannot_be_damaged() -> None:
    assert set(reasons_against(local=True, keep=2, spare_hosts={})) == {Fault.KILL_HOST, Fault.PARTITION}
    assert set(reasons_against(local=True, keep=1, spare_hosts={})) == set(Fault) - {
        Fault.KILL_RANK,
        Fault.FREEZE,
    }


def test_a_link_that_cannot_be_cut_leaves_the_other_faults_of_a_host() -> None:
    reasons = reasons_against(local=False, keep=2, spare_hosts={"b": "Ray does not run as root there"})
    assert set(reasons) == {Fault.PARTITION} and "b: Ray does not run as root" in reasons[Fault.PARTITION]
    assert not reasons_against(local=False, keep=2, spare_hosts={"b": "no ip", "c": ""})


def test_the_order_is_drawn_from_the_seed_and_every_kind_comes_before_any_comes_again() -> None:
    plan = plan_faults(tuple(Fault), 12, 7, 600)
    assert plan == plan_faults(tuple(Fault), 12, 7, 600)
    assert plan != plan_faults(tuple(Fault), 12, 8, 600)
    assert {fault.fault for fault in plan[:5]} == {fault.fault for fault in plan[5:10]} == set(Fault)
    assert set(Counter(fault.fault for fault in plan).values()) == {2, 3}


def test_faults_are_spread_over_the_steps_of_the_run() -> None:
    assert [fault.step for fault in plan_faults((Fault.FREEZE,), 3, 0, 100)] == [25, 50, 75]


def test_a_run_too_short_for_its_faults_is_refused() -> None:
    with pytest.raises(InputError, match="the job has 7 steps, and 3 faults need 8; raise train.epochs"):
        plan_faults((Fault.FREEZE,), 3, 0, 7)


@pytest.mark.parametrize(("draw", "rank"), [(0.0, 3), (0.49, 3), (0.5, 8), (0.99, 8)])
def test_the_rank_is_one_that_the_fault_may_hit(draw: float, rank: int) -> None:
    assert Planned(1, Fault.FREEZE, 5, draw, Damage.TRUNCATE).choose([3, 8]) == rank


def test_a_group_steps_from_its_first_step_until_something_is_known_to_have_ended_it() -> None:
    history, state = generation(1, 0, 1), state_of(1)
    assert stepping_group(history[:-1], state) is None
    history.append(saved(10, 4))
    group = stepping_group(history, state)
    assert group is not None and (group.generation, group.step) == (1, 4)
    assert group.ranks == {0: Process(host="a", pid=10, started=0), 1: Process(host="b", pid=11, started=1)}
    history.append(failure(11, 1, "rank_crashed"))
    assert stepping_group(history, state) is None


@pytest.mark.parametrize("state", [RunState(), RunState(generation=2), state_of(1), state_of(3)], ids=str)
def test_a_group_is_not_a_target_while_the_state_is_of_another_generation(state: RunState) -> None:
    history = [*generation(1, 0, 1), failure(20, 1, "rank_crashed"), *generation(2, 30, 4)]
    assert stepping_group(history, state) is None
    assert stepping_group(history, state_of(2)) is not None


def test_seconds_lost_last_from_the_fault_to_the_first_step_of_the_next_generation() -> None:
    history = [*generation(1, 0, 1), injected(20.1, 20, Fault.KILL_RANK), failure(21, 1, "rank_crashed"),
               *generation(2, 22, 4)]  # fmt: skip
    report = fault_report(history, planned(Fault.KILL_RANK), "")
    assert report["fired"] and report["named"] == "rank_crashed" and report["seconds_lost"] == 11.0
    assert (report["rank"], report["host"], report["step"], report["proof"]) == (1, "b", 5, "seen")


def test_a_start_that_fails_too_is_part_of_what_is_lost() -> None:
    history = [*generation(1, 0, 1), injected(20, 20, Fault.KILL_RANK), failure(21, 1, "host_lost"),
               *generation(2, 22, 4)[:1], failure(30, 2, "start_failed"), *generation(3, 31, 4)]  # fmt: skip
    assert fault_report(history, planned(Fault.KILL_RANK), "")["seconds_lost"] == 20.0


def test_a_host_that_returns_before_its_loss_is_detected_costs_the_time_until_the_next_step() -> None:
    history = [*generation(1, 0, 1), injected(32, 20, Fault.PARTITION), saved(33, 6), returned(40)]
    assert recovered_at(history, 1, 1) is None
    history.append(saved(41, 7))
    report = fault_report(history, planned(Fault.PARTITION), "")
    assert report["fired"] and report["named"] is None and report["seconds_lost"] == 21.0


def test_a_host_that_never_came_back_is_no_fault_survived() -> None:
    history = [*generation(1, 0, 1), injected(20, 20, Fault.KILL_HOST)]
    assert not fault_report(history, planned(Fault.KILL_HOST), "")["fired"]
    history.append(returned(60, problem="ray start failed"))
    report = fault_report(history, planned(Fault.KILL_HOST), "")
    assert not report["fired"] and report["proof"] == "seen, ray start failed"


def test_a_host_that_ray_does_not_list_again_is_no_fault_survived() -> None:
    history = [*generation(1, 0, 1), injected(20, 20, Fault.KILL_HOST)]
    assert fault_report(history, planned(Fault.KILL_HOST), "")["proof"].endswith(
        "the host did not report that it is back"
    )
    history.append(returned(35, note="at priority 15"))
    report = fault_report(history, planned(Fault.KILL_HOST), "")
    assert report["fired"] and report["proof"] == "seen, the host is back at priority 15"
    history.append(Recorded(275, HostMissing(number=1, host="b", waited_s=240.0)))
    report = fault_report(history, planned(Fault.KILL_HOST), "")
    assert not report["fired"]
    assert report["proof"] == "seen, Ray did not list the host again within 240 s"


def started(number: int, t: float, hosts: tuple[str, ...]) -> list[Recorded]:
    """The events of a group that starts within a second."""
    return recorded(
        (t, GroupStarting(generation=number, world_size=2)),
        (t + 1, GroupStarted(generation=number, world_size=2, hosts=hosts)),
    )


@pytest.mark.parametrize(
    ("starts_at", "hosts", "waited"),
    [(22, ("a", "c"), False), (22, ("a", "b"), True), (36, ("a", "b"), False)],
    ids=["a spare host takes over", "only the lost host is free", "the lost host is back before the start"],
)
def test_a_run_waited_for_the_lost_host_if_its_next_group_began_before_the_host_was_back(
    starts_at: float, hosts: tuple[str, ...], waited: bool
) -> None:
    history = [*started(1, 0, ("a", "b")), injected(20, 20, Fault.KILL_HOST)]
    assert was_made(history, 1) and not was_made(history, 2)
    assert not waited_for_host(history, 1)
    history += [*started(2, starts_at, hosts), returned(35)]
    assert waited_for_host(history, 1) is waited
    assert fault_report(history, planned(Fault.KILL_HOST), "")["waited_for_host"] is waited


def test_a_damaged_checkpoint_counts_only_when_the_run_has_found_it_corrupt() -> None:
    history = [*generation(1, 0, 1), injected(20, 20, Fault.CORRUPT_CHECKPOINT, checkpoint=CORRUPT)]
    history.append(Recorded(29, CheckpointCorrupt(checkpoint="step_00000004", detail="checksum")))
    assert not fault_report(history, planned(Fault.CORRUPT_CHECKPOINT), "")["fired"]
    history.append(Recorded(30, CheckpointCorrupt(checkpoint=CORRUPT, detail="checksum")))
    report = fault_report(history, planned(Fault.CORRUPT_CHECKPOINT), "")
    assert report["fired"] and report["proof"] == "seen, found corrupt"


def test_a_fault_that_never_happened_says_why() -> None:
    report = fault_report(generation(1, 0, 1), planned(Fault.KILL_HOST), "no rank was there")
    assert not report["fired"] and report["proof"] == "no rank was there"


def test_a_clean_step_is_timed_without_the_first_one_and_without_evaluation() -> None:
    history = [*generation(1, 0, 1), Recorded(19, epoch(1, 11, evaluate_s=5.0))]
    assert mean_step_s(history) == pytest.approx(0.5)
    assert mean_step_s(history[:-1]) is None


def test_goodput_is_useful_step_time_over_the_wall_time_of_training() -> None:
    history = recorded((0, StageStarted(stage="train")), (200, StageFinished(stage="train")))
    assert goodput(history, 100, 0.5) == 0.25
    assert goodput([], 100, 0.5) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--faults", "kill-rank,flood"],
            "--faults names 'flood'; the known faults are kill-rank, ",
        ),
        (["--count", "0"], "--count is 0; give a number from 1 to 1000"),
        (["--faults", "kill-host"], "none of the faults can be shown here (kill-host: cluster.address is"),
    ],
)
def test_wrong_input_is_one_line(tmp_path: Path, options: list[str], message: str) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(f"name: x\nstorage: {tmp_path}\n")
    result = CliRunner().invoke(app, ["drill", str(job), *options])
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception) and "\n" not in str(result.exception)


def test_an_earlier_drill_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "x-drill").mkdir()
    (tmp_path / "x-drill" / "events.jsonl").touch()
    job = tmp_path / "job.yaml"
    job.write_text(f"name: x\nstorage: {tmp_path}\n")
    result = CliRunner().invoke(app, ["drill", str(job)])
    assert isinstance(result.exception, InputError) and "holds an earlier drill" in str(result.exception)
