"""A Ray cluster on this machine, started as users start one, and the clean run of the launch tests."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.run_directory import RunDirectory
from tests.integration.jobs import job_file
from tests.integration.ray_node import RayCluster, free_ports, program


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    port, dashboard = free_ports(2)
    home = tmp_path_factory.mktemp("home")
    environment = {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        # Ray's dashboard leaves sockets there when it is stopped; pytest removes them with the rest.
        "TMPDIR": str(home),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    cluster = RayCluster(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", environment)
    # In the foreground: `ray stop` would end every Ray of this machine, not only this one.
    node = subprocess.Popen(
        [str(program("ray")), "start", "--block", "--head", "--node-ip-address=127.0.0.1", f"--port={port}",
         "--num-cpus=2", "--include-dashboard=true", "--dashboard-host=127.0.0.1",
         f"--dashboard-port={dashboard}"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert node.stdout is not None
        assert any("Ray runtime started" in line for line in node.stdout), "the Ray node did not start"
        yield cluster
    finally:
        # SIGTERM would be answered after half a minute.
        processes = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes)
        node.communicate()


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="session")
def submitted(ray_cluster: RayCluster, storage: Path) -> subprocess.CompletedProcess[str]:
    """The clean run, through `ray job submit`."""
    job = job_file(storage, "clean")
    while True:  # the test's time-out ends a wait that is in vain
        done = ray_cluster.run(
            "ray", "job", "submit", "--address", ray_cluster.dashboard, "--working-dir", str(storage),
            "--", "sdnet-orchestrate", "launch", str(job), timeout=280,
        )  # fmt: skip
        # A node is up some seconds before the agent that takes its jobs.
        if "No available agent" not in done.stderr:
            return done


@pytest.fixture(scope="session")
def clean(submitted: subprocess.CompletedProcess[str], storage: Path) -> RunDirectory:
    assert submitted.returncode == 0, submitted.stdout[-3000:] + submitted.stderr[-3000:]
    return RunDirectory(storage / "clean")
