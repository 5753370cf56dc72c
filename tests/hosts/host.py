"""One host of the bed: a namespace with its own address, disk and Ray node, and the faults that a test can inject."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.hosts.network import Cable, kill_all_in, pids_in, signal_to

GCS_PORT = 6379
RAY = str(Path(sys.executable).with_name("ray"))
# The smallest object store that Ray accepts is 75 MB.
_RAY_OPTIONS = (
    "--num-cpus=1",
    "--object-store-memory=80000000",
    "--disable-usage-stats",
    "--include-log-monitor=false",
    "--log-color=false",
)
# No autoscaler: it starts slowly and has nothing to do here.
_HEAD_OPTIONS = ("--head", f"--port={GCS_PORT}", "--no-monitor")
# Mounts the host's own disk, or its view of shared storage, at a path that is the same on all hosts.
_WITH_DISK = 'mount --bind "$0" "$1" && shift && exec "$@"'


@dataclass
class Host:
    """One namespace with one address; Ray knows it by the resource `name`, as `host2`.

    directory: its own disk, which its commands see at `disk`, as on every host.
    environment: that of its commands, Ray's token among them. ray_options: what this host's
    `ray start` gets in addition, such as `--num-cpus=2`; of equal options the last one counts.
    views: directories that its commands see at other paths, such as a mount of its own of the shared storage.
    """

    name: str
    cable: Cable
    directory: Path
    disk: Path
    environment: dict[str, str]
    ray_options: tuple[str, ...] = ()
    views: dict[Path, Path] = field(default_factory=dict)
    _children: "list[subprocess.Popen[str]]" = field(default_factory=list)

    @property
    def address(self) -> str:
        return self.cable.address

    def popen(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None, **options: Any
    ) -> "subprocess.Popen[str]":
        """Start a command on this host, in text mode; the bed ends it at the latest."""
        bound = {self.disk: self.directory, **self.views}
        disks = [part for at, own in bound.items() for part in ("sh", "-c", _WITH_DISK, str(own), str(at))]
        child = subprocess.Popen(
            ["ip", "netns", "exec", self.cable.host, *disks, *command],
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
        """The last output of `ray start`."""
        return self.directory / "ray_start.log"

    def pids(self) -> list[int]:
        """Every process that runs on this host."""
        return pids_in(self.cable.host)

    def processes(self, word: str = "") -> list[psutil.Process]:
        """The processes whose name or an argument begins with `word`.

        Examples: `raylet`, `gcs_server`, `ray::` (its workers), `orchestrator.engine.rank.scheduler`.
        """
        found = []
        for pid in self.pids():
            try:
                process = psutil.Process(pid)
                # Only the last part of a path: the name of a test's directory must not match.
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
        """Everything ends without closing a connection: the peers hear nothing."""
        self.cable.cut()
        self.kill()

    def freeze(self, word: str = "") -> list[psutil.Process]:
        """SIGSTOP the processes that `word` names, all by default; returns them when they have stopped."""
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
        """Undo `impair_link`."""
        self.cable.clear()

    def end_children(self) -> None:
        """End what `popen` started and this process still waits for."""
        self.cable.discard_wire()
        for child in self._children:
            child.kill()
            child.wait()
            for stream in filter(None, (child.stdin, child.stdout, child.stderr)):
                stream.close()


def _runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
