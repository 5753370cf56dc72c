"""The Ray node of a host: what it was started with, its end, and starting it again the same way."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from orchestrator.processes import still_running

_RAYLET = "raylet"
_LOG_MONITOR = "log_monitor.py"
_GONE_WITHIN_S = 10.0
_STARTED_WITHIN_S = 60.0
# Resources that `ray start` takes by an option of their own; NPUs are among the others.
_OPTIONS = {"CPU": "--num-cpus", "GPU": "--num-gpus", "memory": "--memory",
            "object_store_memory": "--object-store-memory"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class RayNode:
    """A Ray node as it was when somebody looked: enough to kill it and to start it again."""

    raylet: int
    log_monitors: tuple[int, ...]
    start: tuple[str, ...]
    environment: dict[str, str]

    def kill(self) -> int:
        """SIGKILL all of it; returns how many processes are gone."""
        roots = [psutil.Process(pid) for pid in (self.raylet, *self.log_monitors) if psutil.pid_exists(pid)]
        processes = [*roots, *(child for root in roots for child in root.children(recursive=True))]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):  # its parent may have ended it by now
                process.kill()
        left = still_running(processes, _GONE_WITHIN_S)
        if left:
            raise RuntimeError(f"still there: {', '.join(str(process.pid) for process in left)}")
        return len(processes)

    def start_again(self) -> None:
        """Run `ray start` as it was run before. Raises subprocess.SubprocessError when it fails."""
        subprocess.run(
            self.start, env=self.environment, stdin=subprocess.DEVNULL, timeout=_STARTED_WITHIN_S, check=True
        )


def node_above() -> RayNode:
    """The node that this process, a Ray worker, belongs to."""
    raylet = next(parent for parent in psutil.Process().parents() if parent.name() == _RAYLET)
    command = raylet.cmdline()
    monitors = _log_monitors(raylet)
    return RayNode(
        raylet=raylet.pid,
        log_monitors=monitors,
        start=start_command(command, log_monitor=bool(monitors)),
        environment=raylet.environ(),
    )


def start_command(raylet: Sequence[str], *, log_monitor: bool) -> tuple[str, ...]:
    """The `ray start` that makes a raylet with this command line again."""
    given = dict(part.removeprefix("--").partition("=")[::2] for part in raylet[1:])
    words = given["static_resource_list"].split(",")
    resources = dict(zip(words[::2], (float(amount) for amount in words[1::2]), strict=True))
    options = [f"{option}={resources[name]:.0f}" for name, option in _OPTIONS.items() if name in resources]
    others = {
        name: amount
        for name, amount in resources.items()
        if name not in _OPTIONS and not name.startswith("node:")
    }
    labels = json.loads(given.get("labels") or "{}")
    if labels:
        options.append("--labels=" + ",".join(f"{name}={value}" for name, value in labels.items()))
    return (
        sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={given['gcs-address']}",
        f"--node-ip-address={given['node_ip_address']}", *options, f"--resources={json.dumps(others)}",
        "--disable-usage-stats", f"--include-log-monitor={str(log_monitor).lower()}",
    )  # fmt: skip


def _log_monitors(raylet: psutil.Process) -> tuple[int, ...]:
    """Those that `ray start` began beside the raylet; it is not their parent."""
    network = _network_of(raylet.pid)
    session = next(part.partition("=")[2] for part in raylet.cmdline() if part.startswith("--session_dir="))
    found = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            ours = f"--session-dir={session}" in command and _network_of(process.pid) == network
            if ours and any(Path(part).name == _LOG_MONITOR for part in command):
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError, PermissionError):
            continue  # gone meanwhile, or another user's
    return tuple(found)


def _network_of(pid: int) -> str:
    # Hosts that are network namespaces of one machine see each other's processes.
    return str(Path(f"/proc/{pid}/ns/net").readlink())
