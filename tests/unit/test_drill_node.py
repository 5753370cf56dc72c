"""A host's Ray node: killed and started again the same way, at the same priority."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from orchestrator.drill.agent import start_again
from orchestrator.drill.faults import Damage, Fault
from orchestrator.drill.inject import Order, Target
from orchestrator.drill.priority import Priority
from orchestrator.drill.ray_node import ProcessId, RayNode, start_command
from orchestrator.job.run_directory import RunDirectory


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


def test_an_order_reaches_the_process_that_outlives_the_node_as_it_was_given(tmp_path: Path) -> None:
    target = Target(RunDirectory(tmp_path), 3, Fault.PARTITION, Damage.REMOVE, 5, 2, 40, 1, "10.0.0.2", 77)
    order = Order(target, ray_node("ray", "start"))
    assert Order.from_json(order.to_json()) == order


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
