"""Seconds from a fault to the first new step of training, and the seconds of each part.

    python benchmarks/recovery.py [--json] [--times 5]

SDNet with the demo's recipe on two ranks. A rank is killed on a cluster of one host with two
cores for Ray; a host that has a rank is killed in a cluster of three hosts with one core each.
The hosts are network namespaces of this machine (tests/hosts), so all share its cores. A fault is
injected when the standbys of the last recovery are ready. Needs root and iproute2.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the test bed

from orchestrator.job.run_directory import RunDirectory  # noqa: E402
from orchestrator.telemetry import events  # noqa: E402
from orchestrator.telemetry.event import Event  # noqa: E402
from orchestrator.telemetry.record import EventReader  # noqa: E402
from orchestrator.telemetry.state import Process, read_state  # noqa: E402
from tests.hosts.bed import Bed, bed  # noqa: E402
from tests.hosts.ending import Terminated  # noqa: E402
from tests.hosts.network import why_impossible  # noqa: E402
from tests.hosts.test_bed import QUICK_TO_NOTICE  # noqa: E402
from tests.launching import wait_for  # noqa: E402

TARGETS_S = {"host_killed_s": 12.0, "rank_killed_s": 9.0}
JOB = """
name: recovery
cluster: {address: auto, workers: 2}
data: {patches: {per_pair: 12}}
train: {recipe: demo, epochs: 10000}
checkpoint: {every_s: 2, keep: 2}
recovery: {max_failures: 100}
evaluate: {every_epochs: 10000}
"""
# The event that ends each part. Together the parts last from the fault to the first new step.
PARTS: dict[str, type[Event]] = {
    "detected": events.FailureDetected,
    "fenced": events.Fenced,
    "started": events.WorkersStarted,
    "joined": events.GroupStarted,
    "resumed": events.Resumed,
    "compiled": events.Compiled,
    "first_step": events.FirstStep,
}


@contextmanager
def training(cluster: Bed) -> Iterator[RunDirectory]:
    """Run the job on this cluster while the block runs."""
    cluster.start_ray()
    process, run = cluster.launch(JOB)
    yield run
    # Only after success: on an error or a signal the bed kills the launch, which need not save first.
    process.terminate()  # SIGINT would be ignored below a shell's background job
    process.communicate()


def wait_until_ready(run: RunDirectory, time_before: float, standbys: int) -> None:
    """Wait until so many standbys became ready, and a checkpoint was saved, after that time."""
    missing = standbys

    def last_of_them(ready: events.StandbysReady) -> bool:
        nonlocal missing
        missing -= ready.started
        return missing <= 0

    wait_for(run, events.StandbysReady, last_of_them, since=time_before)
    wait_for(run, events.CheckpointSaved, since=time_before)


def measure(run: RunDirectory, make_fault: Callable[[], None]) -> dict[str, float]:
    """Inject the fault; returns the seconds of each part."""
    at = time.time()
    make_fault()
    wait_for(run, events.FirstStep, since=at)
    later = [recorded for recorded in EventReader(run.storage).read() if recorded.t > at]
    parts = {}
    since = at
    for part, kind in PARTS.items():
        ended = next(recorded.t for recorded in later if isinstance(recorded.event, kind))
        parts[part], since = round(ended - since, 3), ended
    return parts


def last_ranks(run: RunDirectory) -> list[Process]:
    """The processes of the newest generation, rank 0 first."""
    ranks = read_state(run.storage).ranks
    return [ranks[str(rank)] for rank in range(len(ranks))]


def kill_ranks(times: int) -> list[dict[str, float]]:
    """On one host, kill rank 0 and rank 1 in turn."""
    found = []
    with bed(1, QUICK_TO_NOTICE) as cluster:
        cluster.head.ray_options = ("--num-cpus=2",)
        with training(cluster) as run:
            began = 0.0
            for turn in range(times):
                wait_until_ready(run, began, standbys=2)
                pid = last_ranks(run)[turn % 2].pid
                found.append(measure(run, partial(os.kill, pid, signal.SIGKILL)))
                began = time.time()
    return found


def kill_hosts(times: int) -> list[dict[str, float]]:
    """On three hosts, one of them spare, kill the host that has a rank and is not the head; restart it."""
    found = []
    with bed(3, QUICK_TO_NOTICE) as cluster, training(cluster) as run:
        began = 0.0
        for _ in range(times):
            # The group used two standbys, and the third one died with its host.
            wait_until_ready(run, began, standbys=3)
            used = {process.host for process in last_ranks(run)}
            victim = next(host for host in cluster.hosts[1:] if host.address in used)
            found.append(measure(run, victim.kill))
            began = time.time()
            cluster.restart(victim)
    return found


def summary_of(found: list[dict[str, float]]) -> dict[str, Any]:
    return {part: round(statistics.median(one[part] for one in found), 3) for part in PARTS}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--times", type=int, default=5, help="how often to inject each fault")
    given = parser.parse_args()
    if why_impossible():
        parser.error(why_impossible())
    found = {"host_killed_s": kill_hosts(given.times), "rank_killed_s": kill_ranks(given.times)}
    seconds = {name: [round(sum(one.values()), 2) for one in all_] for name, all_ in found.items()}
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = max(medians[name] / target for name, target in TARGETS_S.items())
    parts = {name: summary_of(all_) for name, all_ in found.items()}
    result = {
        "name": "recovery",
        "ratio": round(ratio, 3),
        "target": 1.0,
        "met": ratio <= 1.0,
        **seconds,
        "targets_s": TARGETS_S,
        "parts": parts,
    }
    if given.json:
        print(json.dumps(result))
        return
    for name, target in TARGETS_S.items():
        print(f"{name}: median {medians[name]:.1f} s of {seconds[name]}, target at most {target:.0f}")
        print("  " + ", ".join(f"{part} {value:.2f}" for part, value in parts[name].items()))


if __name__ == "__main__":
    try:
        main()
    except Terminated as ended:
        print(f"recovery.py: {ended}; its hosts are removed", file=sys.stderr)
        sys.exit(ended.exit_code)
