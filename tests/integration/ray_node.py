"""A Ray node of one host, for the tests that join it."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
Completed = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class RayCluster:
    """One node with a dashboard and token authentication; `environment` lets a process join it."""

    address: str
    dashboard: str
    environment: dict[str, str]

    def run(self, *command: str, timeout: float = 170) -> Completed:
        """Run one of the project's or Ray's commands to its end."""
        return subprocess.run(
            [str(program(command[0])), *command[1:]],
            env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip

    def submit_launch(self, job: Path, *options: str, overrides: Sequence[str] = ()) -> Completed:
        """`ray job submit` of a launch, with a working directory that holds the job file and nothing else.

        options: of `ray job submit`. The test's time-out bounds the wait.
        """
        launch = ("sdnet-orchestrate", "launch", job.name, *overrides)
        with tempfile.TemporaryDirectory() as directory:
            shutil.copy(job, directory)
            while True:
                done = self.run(
                    "ray", "job", "submit", "--address", self.dashboard, "--working-dir", directory,
                    *options, "--", *launch, timeout=280,
                )  # fmt: skip
                # A node runs some seconds before the agent that accepts its jobs.
                if "No available agent" not in done.stderr:
                    return done

    def output_of(self, command: Sequence[str]) -> str:
        """Run a command that joins the cluster; raises CalledProcessError when it fails."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True
        ).stdout


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


@contextmanager
def running_node(home: Path) -> Iterator[RayCluster]:
    """A node that runs while the block runs."""
    port, dashboard, agent, client = free_ports(4)
    environment = {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        # Ray's dashboard leaves sockets there when it is stopped; pytest removes them with the rest.
        "TMPDIR": str(home),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        # As docs/faults.md recommends, so that a stopped job may save.
        "RAY_JOB_STOP_WAIT_TIME_S": "30",
    }
    # In the foreground: `ray stop` would end every Ray of this machine, not only this one.
    node = subprocess.Popen(
        [str(program("ray")), "start", "--block", "--head", "--node-ip-address=127.0.0.1", f"--port={port}",
         "--num-cpus=2", "--include-dashboard=true", "--dashboard-host=127.0.0.1",
         f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}",
         f"--ray-client-server-port={client}"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert node.stdout is not None
        assert any("Ray runtime started" in line for line in node.stdout), "the Ray node did not start"
        # Another suite may run a node on this machine, too. `auto` would take the latest.
        joining = {**environment, "RAY_ADDRESS": f"127.0.0.1:{port}"}
        yield RayCluster(joining["RAY_ADDRESS"], f"http://127.0.0.1:{dashboard}", joining)
    finally:
        # SIGTERM would be answered after half a minute.
        processes = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes)
        node.communicate()
