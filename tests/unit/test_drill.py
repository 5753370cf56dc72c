"""What a drill decides and reads: which faults, in which order, and what each came to."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.drill.agent import start_again
from orchestrator.drill.faults import Damage, Fault, Planned, parse_faults, plan_faults, reasons_against
from orchestrator.drill.inject import Order, Target, saved_checkpoints, spoil
from orchestrator.drill.outcome import (
    Event,
    fault_report,
    goodput,
    mean_step_s,
    recovery_of,
    stepping_group,
    waited_for_host,
    was_made,
)
from orchestrator.drill.priority import Priority
from orchestrator.drill.ray_node import ProcessId, RayNode, start_command
from orchestrator.drill.rehearsal import same_bytes
from orchestrator.run_directory import RunDirectory
from sdnet.errors import InputError


def event(t: float, name: str, **fields: object) -> Event:
    return {"t": t, "event": name, **fields}


def generation(number: int, t: float, step: int) -> list[Event]:
    """The events of a group of two that has done its first step."""
    return [
        event(t, "group_starting", generation=number, world_size=2),
        event(t + 3, "rank_joined", rank=0, host="a", pid=10 * number),
        event(t + 3, "rank_joined", rank=1, host="b", pid=10 * number + 1),
        event(t + 9, "first_step", step=step),
    ]


def failure(t: float, number: int, kind: str) -> Event:
    return event(t, "failure_detected", kind=kind, rank=1, host="b", generation=number, step=5)


def injected(t: float, at: float, fault: Fault, **more: object) -> Event:
    return event(t, "fault_injected", number=1, fault=fault.value, rank=1, host="b", step=5,
                 generation=1, at=at, proof="seen", **more)  # fmt: skip


def ray_node(*start: str) -> RayNode:
    """A node that `start` starts again; its raylet is this process."""
    return RayNode(
        raylet=ProcessId.of(os.getpid()),
        log_monitors=(ProcessId(71, 1),),
        identity=(f"--gcs-address=test-{os.getpid()}:6379", "--node_ip_address=10.231.0.2"),
        start=start,
        environment={"PATH": "/usr/bin:/bin"},
        priority=Priority.of(psutil.Process()),
    )


def planned(fault: Fault) -> Planned:
    return Planned(1, fault, 5, 0.0, Damage.TRUNCATE)


def test_a_list_of_faults_is_read_in_its_order_and_each_once() -> None:
    assert parse_faults("freeze, kill-rank,freeze") == (Fault.FREEZE, Fault.KILL_RANK)


def test_one_machine_cannot_lose_a_host_and_one_checkpoint_cannot_be_spoilt() -> None:
    assert set(reasons_against(local=True, keep=2, spare_hosts={})) == {Fault.KILL_HOST, Fault.PARTITION}
    assert set(reasons_against(local=True, keep=1, spare_hosts={})) == set(Fault) - {
        Fault.KILL_RANK,
        Fault.FREEZE,
    }


def test_a_link_that_nobody_may_cut_leaves_the_other_faults_of_a_host() -> None:
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
    history = generation(1, 0, 1)
    assert stepping_group(history[:-1]) is None
    history.append(event(10, "checkpoint_saved", step=4))
    group = stepping_group(history)
    assert group is not None and (group.generation, group.step) == (1, 4)
    assert group.ranks == {0: ("a", 10), 1: ("b", 11)}
    history.append(failure(11, 1, "rank_crashed"))
    assert stepping_group(history) is None


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


def test_a_host_that_comes_back_before_anybody_missed_it_costs_the_time_until_the_next_step() -> None:
    history = [*generation(1, 0, 1), injected(32, 20, Fault.PARTITION), event(33, "checkpoint_saved", step=6),
               event(40, "host_returned", number=1, host="b", problem="")]  # fmt: skip
    assert recovery_of(history, 1, 1) is None
    history.append(event(41, "checkpoint_saved", step=7))
    report = fault_report(history, planned(Fault.PARTITION), "")
    assert report["fired"] and report["named"] is None and report["seconds_lost"] == 21.0


def test_a_host_that_never_came_back_is_no_fault_survived() -> None:
    history = [*generation(1, 0, 1), injected(20, 20, Fault.KILL_HOST)]
    assert not fault_report(history, planned(Fault.KILL_HOST), "")["fired"]
    history.append(event(60, "host_returned", number=1, host="b", problem="ray start failed"))
    report = fault_report(history, planned(Fault.KILL_HOST), "")
    assert not report["fired"] and report["proof"] == "seen, ray start failed"


def test_a_host_that_ray_does_not_list_again_is_no_fault_survived() -> None:
    history = [*generation(1, 0, 1), injected(20, 20, Fault.KILL_HOST)]
    assert fault_report(history, planned(Fault.KILL_HOST), "")["proof"].endswith(
        "the host did not report that it is back"
    )
    history.append(event(35, "host_returned", number=1, host="b", problem=""))
    assert fault_report(history, planned(Fault.KILL_HOST), "")["fired"]
    history.append(event(275, "host_missing", number=1, host="b", waited_s=240.0))
    report = fault_report(history, planned(Fault.KILL_HOST), "")
    assert not report["fired"]
    assert report["proof"] == "seen, Ray did not list the host again within 240 s"


def started(number: int, t: float, hosts: list[str]) -> list[Event]:
    """The events of a group that begins to start, and has started a second later."""
    return [
        event(t, "group_starting", generation=number, world_size=2),
        event(t + 1, "group_started", generation=number, world_size=2, hosts=hosts),
    ]


@pytest.mark.parametrize(
    ("starts_at", "hosts", "waited"),
    [(22, ["a", "c"], False), (22, ["a", "b"], True), (36, ["a", "b"], False)],
    ids=["a spare host takes over", "only the lost host is free", "the lost host is back before the start"],
)
def test_a_run_waited_for_the_lost_host_if_its_next_group_began_before_the_host_was_back(
    starts_at: float, hosts: list[str], waited: bool
) -> None:
    history = [*started(1, 0, ["a", "b"]), injected(20, 20, Fault.KILL_HOST)]
    assert was_made(history, 1) and not was_made(history, 2)
    assert not waited_for_host(history, 1)
    history += [*started(2, starts_at, hosts), event(35, "host_returned", number=1, host="b", problem="")]
    assert waited_for_host(history, 1) is waited
    assert fault_report(history, planned(Fault.KILL_HOST), "")["waited_for_host"] is waited


def test_a_spoilt_checkpoint_counts_only_when_the_run_has_set_it_aside() -> None:
    history = [*generation(1, 0, 1), injected(20, 20, Fault.CORRUPT_CHECKPOINT, checkpoint="step_00000005")]
    assert not fault_report(history, planned(Fault.CORRUPT_CHECKPOINT), "")["fired"]
    history.append(event(30, "checkpoint_corrupt", checkpoint="step_00000005.corrupt", detail="sum"))
    report = fault_report(history, planned(Fault.CORRUPT_CHECKPOINT), "")
    assert report["fired"] and report["proof"] == "seen, set aside as step_00000005.corrupt"


def test_a_fault_that_never_happened_says_why() -> None:
    report = fault_report(generation(1, 0, 1), planned(Fault.KILL_HOST), "no rank was there")
    assert not report["fired"] and report["proof"] == "no rank was there"


def test_a_clean_step_is_timed_without_the_first_one_and_without_evaluation() -> None:
    history = [*generation(1, 0, 1), event(19, "epoch", step=11, evaluate_s=5.0)]
    assert mean_step_s(history) == pytest.approx(0.5)
    assert mean_step_s(history[:-1]) is None


def test_goodput_is_useful_step_time_over_the_wall_time_of_training() -> None:
    history = [event(0, "stage_started", stage="train"), event(200, "stage_finished", stage="train")]
    assert goodput(history, 100, 0.5) == 0.25
    assert goodput([], 100, 0.5) is None


@pytest.mark.parametrize("damage", Damage)
def test_a_spoilt_checkpoint_differs_in_one_file(tmp_path: Path, damage: Damage) -> None:
    names = ("model.ckpt", "optimizer.ckpt", "state.json")
    for name in names:
        (tmp_path / name).write_bytes(b"0123456789")
    spoilt, how = spoil(tmp_path, damage).split(" ", 1)
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert [name for name in names if left.get(name) != b"0123456789"] == [spoilt]
    assert how == damage.value


def test_only_whole_checkpoints_that_were_not_set_aside_count(tmp_path: Path) -> None:
    for name in ("step_00000010", "step_00000009", "step_00000008.corrupt", ".step_00000011.77"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert [path.name for path in saved_checkpoints(RunDirectory(tmp_path))] == [
        "step_00000009",
        "step_00000010",
    ]


def test_a_node_is_started_again_with_the_resources_address_and_labels_it_had() -> None:
    resources = "node:10.0.0.2,1.0,CPU,4,NPU,8,h2,1.0,memory,500,object_store_memory,90"
    raylet = ["raylet", "--node_ip_address=10.0.0.2", "--gcs-address=10.0.0.1:6379",
              '--labels={"rack": "7"}', f"--static_resource_list={resources}"]  # fmt: skip
    command = start_command(raylet, log_monitor=False)
    for option in ("--address=10.0.0.1:6379", "--node-ip-address=10.0.0.2", "--num-cpus=4", "--memory=500",
                   "--object-store-memory=90", "--labels=rack=7", "--include-log-monitor=false"):  # fmt: skip
        assert option in command
    [others] = [word for word in command if word.startswith("--resources=")]
    assert json.loads(others.removeprefix("--resources=")) == {"NPU": 8.0, "h2": 1.0}


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


def test_an_order_reaches_the_process_that_outlives_the_node_as_it_was_given(tmp_path: Path) -> None:
    target = Target(RunDirectory(tmp_path), 3, Fault.PARTITION, Damage.REMOVE, 2, 40, 1, "10.0.0.2", 77)
    order = Order(target, ray_node("ray", "start"))
    assert Order.from_json(order.to_json()) == order


@pytest.mark.parametrize(
    ("step", "optimizer", "same"), [(9, b"o", True), (9, b"p", False), (8, b"o", False)], ids=str
)
def test_runs_are_equal_when_the_files_of_their_last_checkpoints_are(
    tmp_path: Path, step: int, optimizer: bytes, same: bool
) -> None:
    runs = [RunDirectory(tmp_path / name) for name in ("clean", "disturbed")]
    for run, last, content in zip(runs, (9, step), (b"o", optimizer), strict=True):
        checkpoint = run.checkpoints / f"step_{last:08d}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "model.ckpt").write_bytes(b"m")
        (checkpoint / "optimizer.ckpt").write_bytes(content)
    assert same_bytes(*runs) is same


def test_a_run_without_a_checkpoint_is_equal_to_none(tmp_path: Path) -> None:
    assert not same_bytes(RunDirectory(tmp_path / "clean"), RunDirectory(tmp_path / "disturbed"))


def test_a_process_whose_id_is_in_use_again_is_not_taken_for_the_one_before() -> None:
    this = ProcessId.of(os.getpid())
    assert this.process() == psutil.Process()
    assert ProcessId(this.pid, this.started - 1).process() is None
    assert ProcessId(2**22 + 1, this.started).process() is None


TAKES_PRIORITY_BACK = """
import os, sys
from dataclasses import astuple
from pathlib import Path
import psutil
from orchestrator.drill.priority import Priority
before = Priority.of(psutil.Process())
os.nice(3)
Path("/proc/self/oom_score_adj").write_text("1000")
os.sched_setaffinity(0, {before.cpus[0]})
assert Priority.of(psutil.Process()) != before
message = before.take()
assert message or Priority.of(psutil.Process()) == before
print(before.nice, Priority.of(psutil.Process()).nice, message)
"""


def test_what_a_low_priority_worker_starts_takes_the_priority_of_its_raylet() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TAKES_PRIORITY_BACK], capture_output=True, text=True, check=True
    )
    before, after, message = done.stdout.rstrip("\n").split(" ", 2)
    if os.geteuid() == 0:
        assert (before, message) == (after, "")
    else:
        assert message == f"at priority {after} instead of {before}, which only root may restore"


# Leaves a process called `raylet`; fails the first times, as `ray start` does on busy cores.
STARTS_LATE = """
{raylet} -c 'while :; do sleep 1; done' {identity} >/dev/null 2>&1 </dev/null &
until test "$(cat /proc/$!/comm)" = raylet; do :; done
echo try >> {tries}
test $(wc -l < {tries}) -ge {successful_try}
"""


@pytest.mark.parametrize("successful_try", [1, 2, 4])
def test_a_raylet_that_a_failed_start_has_left_is_ended_before_the_next_try(
    tmp_path: Path, successful_try: int
) -> None:
    (tmp_path / "raylet").write_bytes(Path("/bin/sh").read_bytes())
    (tmp_path / "raylet").chmod(0o755)
    script = STARTS_LATE.format(
        raylet=tmp_path / "raylet", identity=" ".join(ray_node().identity), tries=tmp_path / "tries",
        successful_try=successful_try,
    )  # fmt: skip
    node = ray_node("sh", "-c", script)
    try:
        if successful_try <= 3:
            start_again(node, tries=3)
        else:
            with pytest.raises(RuntimeError, match=r"Ray did not start again in 3 tries: .* exit status 1"):
                start_again(node, tries=3)
        assert (tmp_path / "tries").read_text() == "try\n" * min(successful_try, 3)
        assert len(node.raylets()) == (1 if successful_try <= 3 else 0)
    finally:
        for raylet in node.raylets():
            raylet.kill()
