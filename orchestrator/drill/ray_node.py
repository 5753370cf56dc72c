"""The Ray node of a host: reads how it was started, kills it, and starts it again in the same way."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from orchestrator.drill.priority import Priority
from orchestrator.engine.host.processes import still_running

_RAYLET = "raylet"
_LOG_MONITOR = "log_monitor.py"
_IDENTITY = ("--gcs-address=", "--node_ip_address=")
# The process has ended, or belongs to another user.
_NOT_OURS = (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError, PermissionError)
_GONE_WITHIN_S = 10.0
_STARTED_WITHIN_S = 60.0
# Resources for which `ray start` has an option. NPUs have none.
_OPTIONS = {"CPU": "--num-cpus", "GPU": "--num-gpus", "memory": "--memory",
            "object_store_memory": "--object-store-memory"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process, distinguished from later ones with the same id. started: clock ticks after boot."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "ProcessId":
        started = _started(pid)
        if started is None:
            raise psutil.NoSuchProcess(pid)
        return cls(pid, started)

    def process(self) -> psutil.Process | None:
        """The process, or None if it has ended."""
        try:
            return psutil.Process(self.pid) if _started(self.pid) == self.started else None
        except psutil.NoSuchProcess:
            return None


@dataclass(frozen=True, slots=True)
class RayNode:
    """A snapshot of a Ray node, with all that is needed to kill it and to start it again.

    identity: the arguments by which a raylet names its cluster and its own address.
    """

    raylet: ProcessId
    log_monitors: tuple[ProcessId, ...]
    identity: tuple[str, ...]
    start: tuple[str, ...]
    environment: dict[str, str]
    priority: Priority

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> "RayNode":
        """The inverse of `dataclasses.asdict`, also after a conversion to JSON."""
        return cls(
            raylet=ProcessId(**raw["raylet"]),
            log_monitors=tuple(ProcessId(**monitor) for monitor in raw["log_monitors"]),
            identity=tuple(raw["identity"]),
            start=tuple(raw["start"]),
            environment=raw["environment"],
            priority=Priority(**{**raw["priority"], "cpus": tuple(raw["priority"]["cpus"])}),
        )

    def kill(self) -> int:
        """Kill all of its processes; returns how many have ended."""
        roots = [one.process() for one in (self.raylet, *self.log_monitors)]
        return kill_trees([root for root in roots if root is not None])

    def start_again(self) -> None:
        """Run `ray start` as it was run before. Raises subprocess.SubprocessError when it fails."""
        subprocess.run(
            self.start, env=self.environment, stdin=subprocess.DEVNULL, timeout=_STARTED_WITHIN_S, check=True
        )

    def raylets(self) -> set[psutil.Process]:
        """The raylets of this host that run for the same cluster under the same address."""
        network = _network_of(os.getpid())
        found = set()
        for process in psutil.process_iter():
            with contextlib.suppress(*_NOT_OURS):
                ours = process.name() == _RAYLET and _network_of(process.pid) == network
                if ours and set(self.identity) <= set(process.cmdline()):
                    found.add(process)
        return found


def kill_trees(roots: Sequence[psutil.Process]) -> int:
    """Kill these processes and their descendants; returns how many have ended. Raises RuntimeError."""
    processes = []
    for root in roots:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes += [root, *root.children(recursive=True)]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # its parent may already have ended it
            process.kill()
    left = still_running(processes, _GONE_WITHIN_S)
    if left:
        raise RuntimeError(f"still there: {', '.join(str(process.pid) for process in left)}")
    return len(processes)


def node_above() -> RayNode:
    """The Ray node of this process, which is a Ray worker."""
    raylet = next(parent for parent in psutil.Process().parents() if parent.name() == _RAYLET)
    command = raylet.cmdline()
    monitors = _log_monitors(raylet)
    return RayNode(
        raylet=ProcessId.of(raylet.pid),
        log_monitors=tuple(ProcessId.of(pid) for pid in monitors),
        identity=tuple(part for part in command if part.startswith(_IDENTITY)),
        start=start_command(command, log_monitor=bool(monitors)),
        environment=raylet.environ(),
        priority=Priority.of(raylet),
    )


def start_command(raylet: Sequence[str], *, log_monitor: bool) -> tuple[str, ...]:
    """The `ray start` command that starts a raylet with this command line again."""
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
        sys.executable, "-P", "-m", "ray.scripts.scripts", "start", f"--address={given['gcs-address']}",
        f"--node-ip-address={given['node_ip_address']}", *options, f"--resources={json.dumps(others)}",
        "--disable-usage-stats", f"--include-log-monitor={str(log_monitor).lower()}",
    )  # fmt: skip


def _log_monitors(raylet: psutil.Process) -> tuple[int, ...]:
    """The log monitors of the node. `ray start` starts them; the raylet is not their parent."""
    network = _network_of(raylet.pid)
    session = next(part.partition("=")[2] for part in raylet.cmdline() if part.startswith("--session_dir="))
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(*_NOT_OURS):
            command = process.cmdline()
            ours = f"--session-dir={session}" in command and _network_of(process.pid) == network
            if ours and any(Path(part).name == _LOG_MONITOR for part in command):
                found.append(process.pid)
    return tuple(found)


def _started(pid: int) -> int | None:
    """Clock ticks from boot to the start of the process; None when there is no such process."""
    try:
        # The name, in parentheses, may contain spaces.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None


def _network_of(pid: int) -> str:
    # In tests, hosts are network namespaces of one machine and see each other's processes.
    return str(Path(f"/proc/{pid}/ns/net").readlink())
