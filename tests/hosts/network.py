"""Network namespaces on a switch: creates the hosts' network stacks and links, and removes them.

The switch is a bridge in a namespace of its own, so nothing is added to the machine's own
network, no packet passes its firewall, and two beds may use the same addresses. Every name
contains the owner of the bed (see owner.py), so that stale namespaces can be found and removed.
"""

import contextlib
import ipaddress
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.hosts.owner import Owner, is_stale

NETWORK = ipaddress.ip_network("10.231.0.0/24")
_NAMESPACES = Path("/run/netns")
_WIRE = str(Path(__file__).with_name("wire.py"))


@dataclass
class Cable:
    """The link from a host's namespace to its port of the switch, which is another namespace."""

    host: str
    switch: str
    port: str
    address: str
    _wire: "subprocess.Popen[str] | None" = None

    def cut(self) -> None:
        """Take the link down at the switch; the host still reaches itself."""
        ip("-n", self.switch, "link", "set", self.port, "down")

    def heal(self) -> None:
        """Take the link up again."""
        ip("-n", self.switch, "link", "set", self.port, "up")

    def impair(self, delay_ms: float, loss_percent: float) -> None:
        """Put a wire that delays and drops frames each way between the port and the bridge."""
        self.clear()
        wire = f"{self.port}wire"
        self._batch(
            f"link add {wire} type veth peer name {wire}end",
            f"link set {wire} up",
            f"link set {wire}end master bridge up",
            f"link set {self.port} nomaster",
        )
        self._wire = subprocess.Popen(
            ["ip", "netns", "exec", self.switch, sys.executable, _WIRE, self.port, wire,
             str(delay_ms), str(loss_percent)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._wire.stdout is not None
        if not self._wire.stdout.readline():
            raise RuntimeError(f"{self.host}: the wire did not start, status {self._wire.wait()}")

    def clear(self) -> None:
        """Undo `impair`."""
        if self._wire is None:
            return
        self.discard_wire()
        self._batch(f"link set {self.port} master bridge", f"link delete {self.port}wire")

    def discard_wire(self) -> None:
        """End the wire's process."""
        if self._wire is not None:
            self._wire.kill()
            self._wire.communicate()
            self._wire = None

    def _batch(self, *steps: str) -> None:
        ip("-n", self.switch, "-batch", "-", text="\n".join(steps))


def lay_cables(prefix: str, count: int) -> list[Cable]:
    """Create a switch and `count` hosts with addresses from `NETWORK`, all connected."""
    switch = f"{prefix}s"
    cables = [
        Cable(f"{prefix}h{number}", switch, f"port{number}", str(address))
        for number, address in zip(range(1, count + 1), NETWORK.hosts(), strict=False)
    ]
    ip("-batch", "-", text="\n".join(f"netns add {name}" for name in (switch, *(c.host for c in cables))))
    pairs = [f"link add eth0 netns {c.host} type veth peer name {c.port} netns {switch}" for c in cables]
    ip("-batch", "-", text="\n".join([f"link add bridge netns {switch} type bridge", *pairs]))
    ports = [f"link set {cable.port} master bridge up" for cable in cables]
    ip("-n", switch, "-batch", "-", text="\n".join(["link set bridge up", *ports]))
    for cable in cables:
        # A host finds its own address through the route to any address; nothing listens there.
        steps = (
            "link set lo up",
            f"addr add {cable.address}/{NETWORK.prefixlen} dev eth0",
            "link set eth0 up",
            f"route add default via {NETWORK.broadcast_address - 1}",
        )
        ip("-n", cable.host, "-batch", "-", text="\n".join(steps))
    return cables


def pids_in(namespace: str) -> list[int]:
    """Every process that runs in the namespace."""
    return [int(pid) for pid in ip("netns", "pids", namespace).split()]


def kill_all_in(namespaces: Sequence[str]) -> None:
    """SIGKILL every process of the namespaces, also those that start during the call; wait for their end."""
    while pids := [pid for name in namespaces for pid in pids_in(name)]:
        for pid in pids:
            signal_to(pid, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=5)


def remove(namespaces: Sequence[str]) -> None:
    """Kill everything in the namespaces and delete them. A missing one is no error."""
    there = [name for name in namespaces if (_NAMESPACES / name).exists()]
    for name in there:
        try:
            kill_all_in([name])
            ip("netns", "delete", name)
        except RuntimeError:
            # Two suites that start together remove the same stale bed.
            if (_NAMESPACES / name).exists():
                raise


def stale_namespaces() -> list[str]:
    """Namespaces of beds whose owner is gone."""
    names = [path.name for path in _NAMESPACES.iterdir()] if _NAMESPACES.is_dir() else []
    return [name for name in names if is_stale(name)]


def why_impossible() -> str:
    """Empty where namespaces can be created, otherwise what is missing."""
    if shutil.which("ip") is None:
        return "ip not found: install iproute2"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"{Owner.this_process().prefix}p"
    try:
        ip("netns", "add", name)
        ip("netns", "delete", name)
    except RuntimeError as error:
        return f"network namespaces are not permitted here: {error}"
    return ""


def signal_to(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def ip(*arguments: str, text: str | None = None) -> str:
    """Run iproute2's `ip`; raises RuntimeError with its output when it fails."""
    done = subprocess.run(["ip", *arguments], input=text, text=True, capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
