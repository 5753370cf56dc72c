"""Thirty random faults on three hosts: the run ends `succeeded` with equal bytes, and nothing is left.

The hosts are network namespaces of this machine (tests/hosts); the drill kills ranks and hosts,
freezes ranks, cuts links and spoils checkpoints. Afterwards, while the hosts still stand, no
process that carries the mark of a run, no actor, no placement group and no half-written
checkpoint may be there.

Needs root and iproute2. Takes about half a minute a fault on two cores.

usage: python benchmarks/soak.py [--count 30] [--seed 7] [--out FILE]
"""

import argparse
import json
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the bed of the tests

from orchestrator.ascend.fence import RUN_VARIABLE  # noqa: E402
from tests.hosts.bed import Bed, bed  # noqa: E402
from tests.hosts.ending import Terminated  # noqa: E402
from tests.hosts.network import why_impossible  # noqa: E402
from tests.hosts.test_bed import QUICK_TO_NOTICE  # noqa: E402
from tests.ray_leftovers import held_in_vain  # noqa: E402

PACKAGES = ("sdnet-orchestrator", "mindspore", "ray", "numpy", "psutil")
# A process that was told to end may need a moment to be gone.
GRACE_S = 10.0
STEPS_A_FAULT = 24
STEPS_AN_EPOCH = 3
JOB = """
name: soak
cluster: {{address: auto, workers: 2, workers_per_host: 1}}
data:
  synthetic: {{pairs: 16, scenes: 4}}
  patches: {{per_pair: 6}}
  split: {{train: 0.5}}
train: {{recipe: demo, epochs: {epochs}, batch: 8}}
checkpoint: {{every_s: 0, keep: 2}}
recovery: {{step_timeout_s: 10}}
evaluate: {{every_epochs: {epochs}, batch: 32}}
"""


def soak(count: int, seed: int) -> dict[str, Any]:
    """The drill's own report, what was left behind, and the versions."""
    with bed(3, QUICK_TO_NOTICE) as cluster:
        cluster.start_ray()
        job = cluster.storage / "soak.yaml"
        epochs = -(-count * STEPS_A_FAULT // STEPS_AN_EPOCH)
        job.write_text(f"storage: {cluster.storage}\n{JOB.format(epochs=epochs)}")
        drill = cluster.sdnet_orchestrate(
            "drill", str(job), "--count", str(count), "--seed", str(seed), "--json"
        )
        output, _ = drill.communicate()
        kept = cluster.storage / "soak-drill" / "drill.json"
        result = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {"error": output}
        left = left_behind(cluster)
    return {
        "name": "soak",
        "count": count,
        "seed": seed,
        "met": drill.returncode == 0 and not left,
        "left_behind": left,
        "drill": result,
        "versions": {package: version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "cores": psutil.cpu_count(),
    }


def left_behind(cluster: Bed) -> list[str]:
    """Half-written checkpoints, processes of a run or an agent, and what Ray holds though its job is over."""
    left = [str(path.relative_to(cluster.storage)) for path in cluster.storage.glob("*/checkpoints/.step_*")]
    ours = [process for host in cluster.hosts for process in host.processes() if is_of_a_run(process)]
    _, alive = psutil.wait_procs(ours, timeout=GRACE_S)
    return left + [described(process) for process in alive] + held_in_vain(cluster.ask_ray)


def described(process: psutil.Process) -> str:
    """What is known of a process that should not be there."""
    try:
        age, words = time.time() - process.create_time(), " ".join(process.cmdline()).strip()
        return f"process {process.pid} of {process.ppid()}, {process.status()}, {age:.0f} s old: {words}"
    except psutil.NoSuchProcess:
        return f"process {process.pid}, gone by now"


def is_of_a_run(process: psutil.Process) -> bool:
    """Whether a process carries the mark of a run, or runs one of our modules."""
    try:
        ours = any(word.startswith("orchestrator.") for word in process.cmdline())
        return ours or RUN_VARIABLE in process.environ()
    except psutil.NoSuchProcess:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, help="keep the result in this file, too")
    given = parser.parse_args()
    if why_impossible():
        parser.error(why_impossible())
    result = soak(given.count, given.seed)
    text = json.dumps(result, indent=2)
    print(text)
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text + "\n", encoding="utf-8")
    sys.exit(0 if result["met"] else 1)


if __name__ == "__main__":
    try:
        main()
    except Terminated as ended:
        print(f"soak.py: {ended}; its hosts are removed", file=sys.stderr)
        sys.exit(ended.exit_code)
