"""A cluster of hosts on one machine: network namespaces on a switch, a Ray node in each.

with bed(hosts=3) as cluster:
    cluster.start_ray()
    cluster.hosts[1].kill()
"""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from orchestrator.job.run_directory import RunDirectory
from tests.hosts.ending import ends_by_exception
from tests.hosts.host import GCS_PORT, Host
from tests.hosts.network import Cable, lay_cables, remove, stale_namespaces
from tests.hosts.owner import Owner, is_stale

_ORCHESTRATE = str(Path(__file__).with_name("orchestrate.py"))
_RAY_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Prestarted workers would take the CPU from those that start.
    "RAY_enable_worker_prestart": "0",
    "PYTHONUNBUFFERED": "1",
}
_START_WITHIN_S = 120.0


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
        """Start a Ray node on every host, the head on the first; returns when all have joined."""
        # All at once: they mostly import, and wait for the head by themselves.
        starts = [(host, host.join_ray(self.head.address)) for host in self.hosts]
        for host, start in starts:
            await_node(host, start)

    def ask_ray(self, command: Sequence[str]) -> str:
        """Run a command that joins the cluster from the head; returns its output."""
        return self.head.run(command, {"RAY_ADDRESS": self.ray_address})

    def sdnet_orchestrate(self, *arguments: str, on: Host | None = None) -> "subprocess.Popen[str]":
        """Start the command on a host, the head by default; its output comes through `stdout`."""
        host = on or self.head
        return host.popen(
            [sys.executable, _ORCHESTRATE, host.address, *arguments],
            {"RAY_ADDRESS": self.ray_address},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def launch(self, job: str, on: Host | None = None) -> tuple["subprocess.Popen[str]", RunDirectory]:
        """Start to launch a job (YAML without `storage`, which is added), on the head by default."""
        path = self.storage / "job.yaml"
        path.write_text(f"storage: {self.storage}\n{job}")
        name = yaml.safe_load(job)["name"]
        return self.sdnet_orchestrate("launch", str(path), on=on), RunDirectory(self.storage / name)

    def restart(self, host: Host) -> None:
        """Bring a killed host back, with its link and a new Ray node."""
        await_node(host, self.bring_back(host))

    def bring_back(self, host: Host) -> "subprocess.Popen[str]":
        """Start a killed host again; `await_node` waits until it has joined."""
        host.heal_link()
        return host.join_ray(self.head.address)


@contextmanager
def bed(hosts: int = 3, settings: Mapping[str, str] | None = None) -> Iterator[Bed]:
    """Hosts that exist while the block runs; one bed per process at a time, in its main thread.

    They are removed however the block ends, also by SIGINT, SIGTERM, SIGHUP or SIGUSR1, which
    raise Terminated. Only SIGKILL leaves a bed behind, and the next bed on the machine removes it.
    settings: environment of every process on the hosts, such as Ray's RAY_... settings.
    """
    remove_stale_beds()
    prefix = Owner.this_process().prefix
    # Short, and the disk too: the paths of Ray's Unix sockets below them must fit in 107 bytes.
    directory = Path(tempfile.gettempdir()) / prefix
    names = [f"{prefix}s", *(f"{prefix}h{number}" for number in range(1, hosts + 1))]
    made: tuple[Host, ...] = ()
    with ends_by_exception() as removal:
        directory.mkdir(mode=0o755)
        try:
            made = _furnish(lay_cables(prefix, hosts), directory, settings or {})
            yield Bed(made, directory / "storage")
        finally:
            removal.begun = True
            remove(names)
            for host in made:
                host.end_children()
            _remove_directory(directory)


def remove_stale_beds() -> None:
    """Remove the processes, namespaces and directories of beds whose owner was killed."""
    remove(stale_namespaces())
    for path in Path(tempfile.gettempdir()).glob("sdn*"):
        if is_stale(path.name):
            _remove_directory(path)


def _remove_directory(path: Path) -> None:
    # Two suites that start together remove the same stale bed, and each finds files gone.
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
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


def await_node(host: Host, start: "subprocess.Popen[str]") -> None:
    """Wait until the host's Ray node has joined. Raises RuntimeError with its log when it does not."""
    if start.wait(timeout=_START_WITHIN_S) != 0:
        log = host.start_log.read_text(errors="replace")
        raise RuntimeError(f"no Ray node on {host.name}: {log[-2000:]}")
