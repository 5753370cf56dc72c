"""Injects thirty random faults on three hosts: the run must succeed with equal bytes and leave nothing.

The hosts are network namespaces of this machine (tests/hosts). The drill kills ranks and hosts,
freezes ranks, cuts links and corrupts checkpoints. Two of the three hosts have a rank, so one is
always free: the run must never wait for a lost host, and at the end all hosts must be in Ray.
Before the hosts are removed, no process of a run, no actor, no placement group and no
half-written checkpoint may be left.

If any check fails, Ray's logs of every host and the logs of the run are kept.

Needs root and iproute2. Takes about half a minute per fault on two cores.

usage: python benchmarks/soak.py [--count 30] [--seed 7] [--out FILE] [--logs DIRECTORY]
"""

import argparse
import json
import platform
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the test bed

from orchestrator.engine import checkpoints  # noqa: E402
from orchestrator.engine.host.left_over import RUN_VARIABLE  # noqa: E402
from orchestrator.storage import DirectoryStorage  # noqa: E402
from orchestrator.telemetry.record import FOLDER, MERGED  # noqa: E402
from tests.hosts.bed import Bed, bed  # noqa: E402
from tests.hosts.ending import Terminated  # noqa: E402
from tests.hosts.network import why_impossible  # noqa: E402
from tests.hosts.test_bed import QUICK_TO_NOTICE  # noqa: E402
from tests.ray_leftovers import held_in_vain  # noqa: E402

PACKAGES = ("sdnet-orchestrator", "mindspore", "ray", "numpy", "psutil")
# A Ray worker that was starting when its raylet ended gives up after 31 s, because no answer comes (Ray 2.60).
GRACE_S = 60.0
LOGS = ROOT / "runs" / "soak-logs"
# The run continues on the other hosts until a lost host is back, for up to 25 s, before the next fault.
STEPS_A_FAULT = 40
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


def soak(count: int, seed: int, faults: str | None, logs: Path) -> dict[str, Any]:
    """The drill's report, what is wrong or left behind, and the versions."""
    with bed(3, QUICK_TO_NOTICE) as cluster:
        cluster.start_ray()
        job = cluster.storage / "soak.yaml"
        epochs = -(-count * STEPS_A_FAULT // STEPS_AN_EPOCH)
        job.write_text(f"storage: {cluster.storage}\n{JOB.format(epochs=epochs)}")
        drill = cluster.sdnet_orchestrate(
            "drill", str(job), "--count", str(count), "--seed", str(seed), "--json",
            *(() if faults is None else ("--faults", faults)),
        )  # fmt: skip
        output, _ = drill.communicate()
        report = cluster.storage / "soak-drill" / "drill.json"
        result = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {"error": output}
        left = left_behind(cluster)
        unused = unused_hosts(result)
        met = drill.returncode == 0 and not left and not unused
        kept = None if met else keep_logs(cluster, logs)
    return {
        "name": "soak",
        "count": count,
        "seed": seed,
        "met": met,
        "left_behind": left,
        "unused_hosts": unused,
        "logs": kept and str(kept),
        "drill": result,
        "versions": {package: version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "cores": psutil.cpu_count(),
    }


def unused_hosts(result: dict[str, Any]) -> list[str]:
    """Signs that a returned host was not used: the run waited for another one, or Ray lost it."""
    return [
        f"fault {fault['number']}: the run waited for {fault['host']} although another host was free"
        for fault in result.get("faults", ())
        if fault["waited_for_host"]
    ] + [f"{host} is not in Ray" for host in result.get("missing_hosts", ())]


def keep_logs(cluster: Bed, logs: Path) -> Path:
    """Copy Ray's logs of every host, and the events and logs of the runs, to a new directory in `logs`."""
    kept = logs / time.strftime("soak_%Y%m%d_%H%M%S")
    for host in cluster.hosts:
        for session in host.directory.glob("ray/session_*"):
            if not session.is_symlink():
                shutil.copytree(session / "logs", kept / host.name, dirs_exist_ok=True)
    for logs_of_run in cluster.storage.glob("*/logs"):
        run, copy = logs_of_run.parent, kept / logs_of_run.parent.name
        shutil.copytree(logs_of_run, copy)
        if (run / MERGED).exists():
            shutil.copy(run / MERGED, copy)
        elif (run / FOLDER).exists():  # the launch could not merge the events
            shutil.copytree(run / FOLDER, copy / FOLDER)
    return kept


def left_behind(cluster: Bed) -> list[str]:
    """Half-written checkpoints, processes of a run or an agent, and what Ray still has after the job."""
    left = [
        f"{run.name}/{path}"
        for run in cluster.storage.iterdir()
        if run.is_dir()
        for path in half_written(DirectoryStorage(run))
    ]
    ours = [process for host in cluster.hosts for process in host.processes() if is_of_a_run(process)]
    _, alive = psutil.wait_procs(ours, timeout=GRACE_S)
    return left + [described(process) for process in alive] + held_in_vain(cluster.ask_ray)


def half_written(storage: DirectoryStorage) -> list[str]:
    """Objects of checkpoints that are neither valid nor marked as corrupt, and temporary files."""
    objects = storage.list(checkpoints.FOLDER)
    ended = (f"/{checkpoints.STATE}", f"/{checkpoints.MARKER}")
    whole = {name.rpartition("/")[0] for name in objects if name.endswith(ended)}
    temporary = [str(path.relative_to(storage.root)) for path in storage.root.glob("checkpoints/**/.*")]
    return [name for name in objects if name.rpartition("/")[0] not in whole] + temporary


def described(process: psutil.Process) -> str:
    """Describe a process that should not exist."""
    try:
        age, words = time.time() - process.create_time(), " ".join(process.cmdline()).strip()
        return f"process {process.pid} of {process.ppid()}, {process.status()}, {age:.0f} s old: {words}"
    except psutil.NoSuchProcess:
        return f"process {process.pid}, ended since"


def is_of_a_run(process: psutil.Process) -> bool:
    """Whether a process has the environment variable of a run, or runs one of our modules."""
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
    parser.add_argument("--faults", help="kinds of faults, separated by commas; all by default")
    parser.add_argument("--out", type=Path, help="write the result to this file as well")
    parser.add_argument("--logs", type=Path, default=LOGS, help="keep the logs of a failed soak there")
    given = parser.parse_args()
    if why_impossible():
        parser.error(why_impossible())
    result = soak(given.count, given.seed, given.faults, given.logs.absolute())
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
