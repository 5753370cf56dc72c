"""A cluster of hosts on one machine: network namespaces on a switch, a Ray node in each.

with bed(hosts=3) as cluster:
    cluster.start_ray()
    cluster.hosts[1].kill()
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from orchestrator.run_directory import RunDirectory
from tests.hosts.network import (
    Cable,
    is_of_dead_suite,
    kill_all_in,
    lay_cables,
    namespaces_of_dead_suites,
    pids_in,
    remove,
    signal_to,
)

GCS_PORT = 6379
RAY = str(Path(sys.executable).with_name("ray"))
_ORCHESTRATE = str(Path(__file__).with_name("orchestrate.py"))
# The smallest object store that Ray accepts is 75 MB.
_RAY_OPTIONS = (
    "--num-cpus=1",
    "--object-store-memory=80000000",
    "--disable-usage-stats",
    "--include-log-monitor=false",
    "--log-color=false",
)
# No autoscaler: it starts slowly and has nobody to serve.
_HEAD_OPTIONS = ("--head", f"--port={GCS_PORT}", "--no-monitor")
_RAY_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Workers that nobody has asked for yet take the CPU from those that start.
    "RAY_enable_worker_prestart": "0",
    "PYTHONUNBUFFERED": "1",
}
# Gives a command its host's own disk, at the path where every host has one.
_WITH_DISK = 'mount --bind "$0" "$1" && shift && exec "$@"'
_START_WITHIN_S = 120.0


@dataclass
class Host:
    """One namespace with one address; Ray knows it by the resource `name`, as `host2`.

    directory: its own disk, which its commands see at `disk`, as those of every host do theirs.
    environment: that of its commands, Ray's token among them. ray_options: what this host's
    `ray start` gets beside the usual, such as `--num-cpus=2`; the last one of a kind counts.
    """

    name: str
    cable: Cable
    directory: Path
    disk: Path
    environment: dict[str, str]
    ray_options: tuple[str, ...] = ()
    _children: "list[subprocess.Popen[str]]" = field(default_factory=list)

    @property
    def address(self) -> str:
        return self.cable.address

    def popen(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None, **options: Any
    ) -> "subprocess.Popen[str]":
        """Start a command on this host, in text mode; it ends with the bed at the latest."""
        disk = ["sh", "-c", _WITH_DISK, str(self.directory), str(self.disk)]
        child = subprocess.Popen(
            ["ip", "netns", "exec", self.cable.host, *disk, *command],
            env={**self.environment, **(environment or {})}, text=True, **options,
        )  # fmt: skip
        self._children.append(child)
        return child

    def run(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None, timeout_s: float = 90.0
    ) -> str:
        """Run a command on this host and return what it printed.

        Raises RuntimeError with its errors when it fails, and subprocess.TimeoutExpired.
        """
        child = self.popen(command, environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            output, errors = child.communicate(timeout=timeout_s)
        finally:
            child.kill()
        if child.returncode != 0:
            raise RuntimeError(
                f"{self.name}: {' '.join(command)[:200]}: {child.returncode}, {errors[-2000:]}"
            )
        return output

    def join_ray(self, head: str) -> "subprocess.Popen[str]":
        """Begin to start this host's Ray node; it is the head when `head` is its own address."""
        place = _HEAD_OPTIONS if head == self.address else (f"--address={head}:{GCS_PORT}",)
        identity = (f"--node-ip-address={self.address}", f'--resources={{"{self.name}": 1}}')
        with self.start_log.open("w") as log:
            return self.popen(
                [RAY, "start", *place, *identity, *_RAY_OPTIONS, *self.ray_options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def start_log(self) -> Path:
        """What `ray start` said last."""
        return self.directory / "ray_start.log"

    def pids(self) -> list[int]:
        """Every process that runs on this host."""
        return pids_in(self.cable.host)

    def processes(self, word: str = "") -> list[psutil.Process]:
        """The processes whose name or an argument begins with `word`.

        Examples: `raylet`, `gcs_server`, `ray::` (its workers), `orchestrator.training.scheduler`.
        """
        found = []
        for pid in self.pids():
            try:
                process = psutil.Process(pid)
                # The last part of a path only: the name of a test's directory must not make a match.
                words = [process.name(), *(Path(argument).name for argument in process.cmdline())]
            except psutil.NoSuchProcess:
                continue
            if any(own.startswith(word) for own in words):
                found.append(process)
        return found

    def kill(self) -> None:
        """SIGKILL everything; peers see closed connections, as when an operating system restarts."""
        kill_all_in([self.cable.host])

    def lose_power(self) -> None:
        """Everything ends and nothing says so: the peers hear only silence."""
        self.cable.cut()
        self.kill()

    def freeze(self, word: str = "") -> list[psutil.Process]:
        """SIGSTOP the processes that `word` names, all by default; returns them when they stand still."""
        frozen = self.processes(word)
        for process in frozen:
            process.suspend()
        while any(_runs(process) for process in frozen):
            os.sched_yield()
        return frozen

    def thaw(self) -> None:
        """SIGCONT everything on the host."""
        for pid in self.pids():
            signal_to(pid, signal.SIGCONT)

    def cut_link(self) -> None:
        """Pull the cable at the switch; the host still reaches itself."""
        self.cable.cut()

    def heal_link(self) -> None:
        """Put the cable back."""
        self.cable.heal()

    def impair_link(self, delay_ms: float = 0.0, loss_percent: float = 0.0) -> None:
        """Delay and drop frames each way, until `clear_link`; a round trip takes twice the delay."""
        self.cable.impair(delay_ms, loss_percent)

    def clear_link(self) -> None:
        """Take `impair_link` back."""
        self.cable.clear()

    def end_children(self) -> None:
        """End what `popen` started and this process still waits for."""
        self.cable.discard_wire()
        for child in self._children:
            child.kill()
            child.wait()
            for stream in filter(None, (child.stdin, child.stdout, child.stderr)):
                stream.close()


@dataclass(frozen=True)
class Bed:
    """Hosts on one switch; `storage` is a directory that all of them see."""

    hosts: tuple[Host, ...]
    storage: Path

    @property
    def head(self) -> Host:
        return self.hosts[0]

    @property
    def ray_address(self) -> str:
        return f"{self.head.address}:{GCS_PORT}"

    def start_ray(self) -> None:
        """A Ray node on every host, the first one the head; returns when all have joined."""
        # All at once: they spend most of the time importing, and wait for the head by themselves.
        starts = [(host, host.join_ray(self.head.address)) for host in self.hosts]
        for host, start in starts:
            _await_node(host, start)

    def ask_ray(self, command: Sequence[str]) -> str:
        """What a command prints that joins the cluster from the head."""
        return self.head.run(command, {"RAY_ADDRESS": self.ray_address})

    def sdnet_orchestrate(self, *arguments: str, on: Host | None = None) -> "subprocess.Popen[str]":
        """Start the command on a host, the head by default; what it prints comes through `stdout`."""
        host = on or self.head
        return host.popen(
            [sys.executable, _ORCHESTRATE, host.address, *arguments],
            {"RAY_ADDRESS": self.ray_address},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def launch(self, job: str, on: Host | None = None) -> tuple["subprocess.Popen[str]", RunDirectory]:
        """Start to launch a job, YAML without `storage`: the shared one is put in. On the head by default."""
        path = self.storage / "job.yaml"
        path.write_text(f"storage: {self.storage}\n{job}")
        name = yaml.safe_load(job)["name"]
        return self.sdnet_orchestrate("launch", str(path), on=on), RunDirectory(self.storage / name)

    def restart(self, host: Host) -> None:
        """Bring a killed host back, with its link and a new Ray node."""
        host.heal_link()
        _await_node(host, host.join_ray(self.head.address))


@contextmanager
def bed(hosts: int = 3, settings: Mapping[str, str] | None = None) -> Iterator[Bed]:
    """Hosts that exist for as long as the block lasts, whatever ends it; one bed a process at a time.

    settings: environment of every process on the hosts, such as Ray's RAY_... knobs.
    """
    remove_what_dead_suites_left()
    prefix = f"sdn{os.getpid()}"
    # Short, and the disk too: the paths of Ray's Unix sockets below them must fit in 107 bytes.
    directory = Path(tempfile.gettempdir()) / prefix
    directory.mkdir(mode=0o755)
    names = [f"{prefix}s", *(f"{prefix}h{number}" for number in range(1, hosts + 1))]
    made: tuple[Host, ...] = ()
    try:
        made = _furnish(lay_cables(prefix, hosts), directory, settings or {})
        yield Bed(made, directory / "storage")
    finally:
        remove(names)
        for host in made:
            host.end_children()
        shutil.rmtree(directory)


def remove_what_dead_suites_left() -> None:
    """End the processes, and remove the namespaces and disks, of beds whose suite no longer runs."""
    remove(namespaces_of_dead_suites())
    for path in Path(tempfile.gettempdir()).glob("sdn*"):
        if is_of_dead_suite(f"{path.name}s"):
            shutil.rmtree(path)


def _furnish(cables: Sequence[Cable], directory: Path, settings: Mapping[str, str]) -> tuple[Host, ...]:
    token = directory / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    disk = directory / "d"
    for shared in (disk, directory / "storage"):
        shared.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= _RAY_ENVIRONMENT
    environment |= {
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_TMPDIR": str(disk),
        "TMPDIR": str(disk),
        **settings,
    }
    made = []
    for number, cable in enumerate(cables, start=1):
        own = directory / f"h{number}"
        own.mkdir()
        made.append(Host(f"host{number}", cable, own, disk, dict(environment)))
    return tuple(made)


def _await_node(host: Host, start: "subprocess.Popen[str]") -> None:
    if start.wait(timeout=_START_WITHIN_S) != 0:
        log = host.start_log.read_text(errors="replace")
        raise RuntimeError(f"no Ray node on {host.name}: {log[-2000:]}")


def _runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
