"""A Ray node of one host, as the tests that join it see it."""

import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class RayCluster:
    """One node with a dashboard and token authentication; `environment` lets a process join it."""

    address: str
    dashboard: str
    environment: dict[str, str]

    def run(self, *command: str, timeout: float = 170) -> subprocess.CompletedProcess[str]:
        """Run one of the project's or Ray's commands to its end."""
        return subprocess.run(
            [str(program(command[0])), *command[1:]],
            env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip


def program(name: str) -> Path:
    """A console script of the environment that runs the tests."""
    return Path(sys.executable).parent / name


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for bound in sockets:
        bound.bind(("127.0.0.1", 0))
    ports = [bound.getsockname()[1] for bound in sockets]
    for bound in sockets:
        bound.close()
    return ports
