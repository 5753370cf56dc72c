"""The small job of the launch tests: its file, its launch, and its results."""

import contextlib
import fcntl
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from orchestrator.job.run_directory import RunDirectory
from orchestrator.telemetry.events import RankJoined
from tests.integration.ray_node import RayCluster, program
from tests.launching import checksums, reuse_graphs, wait_for

JOB = """
name: {name}
storage: {storage}
cluster: {{address: auto, workers: 2}}
data:
  synthetic: {{pairs: 16, scenes: 4}}
  patches: {{per_pair: 6}}
  split: {{train: 0.5}}
train: {{recipe: demo, epochs: 2, batch: 8}}
checkpoint: {{every_s: 0, keep: 2}}
evaluate: {{batch: 32}}
"""
# Before the name of a fault; the working directory must be this folder, from which Ray lets the ranks import.
FAULTY_LAUNCH = "import launch_with_a_fault as it; it.launch()"
STEPS = 6  # 8 pairs of 6 patches, 16 per step, twice


def job_file(storage: Path, name: str) -> Path:
    path = storage / f"{name}.yaml"
    path.write_text(JOB.format(name=name, storage=storage))
    return path


def launch(
    cluster: RayCluster,
    storage: Path,
    name: str,
    *options: str,
    python: str = "",
    fault: str = "",
    compiles: bool = False,
) -> tuple["subprocess.Popen[str]", RunDirectory]:
    """Start to launch the job of this name.

    python: runs before the command line. fault: of `launch_with_a_fault`, in the fourth step. compiles: do not reuse
    the graphs of the clean run in the same storage.
    """
    begin = f"{python}\nfrom orchestrator.cli import main\nmain()"
    run = RunDirectory(storage / name)
    if not compiles:
        reuse_graphs(RunDirectory(storage / "clean"), run)
    command = [sys.executable, "-c", begin] if python else [str(program("sdnet-orchestrate"))]
    if fault:
        command = [sys.executable, "-c", FAULTY_LAUNCH, fault]
    process = subprocess.Popen(
        [*command, "launch", str(job_file(storage, name)), *options],
        env=cluster.environment,
        cwd=Path(__file__).parent if fault else None,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    return process, run


@contextlib.contextmanager
def on_a_terminal(
    cluster: RayCluster, storage: Path, name: str, output: Path, *options: str
) -> Iterator[tuple["subprocess.Popen[bytes]", int, RunDirectory]]:
    """A launch in a terminal of its own: its process, and the descriptor that closes the terminal.

    It prints to a file, which outlives the terminal.
    """
    terminal, inside = pty.openpty()
    run = RunDirectory(storage / name)
    reuse_graphs(RunDirectory(storage / "clean"), run)
    with output.open("wb") as printed:
        process = subprocess.Popen(
            [str(program("sdnet-orchestrate")), "launch", str(job_file(storage, name)), *options],
            env=cluster.environment,
            stdin=inside, stdout=printed, stderr=printed, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
    os.close(inside)
    try:
        yield process, terminal, run
    finally:
        process.kill()
        process.wait()


def succeeded(process: "subprocess.Popen[str]") -> None:
    """Wait for a launch to succeed; on failure the message is its output."""
    output, _ = process.communicate()
    assert process.returncode == 0, output


def pid_of(run: RunDirectory, rank: int) -> int:
    """The process of a rank of the first group, as soon as it has joined."""
    return wait_for(run, RankJoined, lambda joined: joined.rank == rank).pid


def listening_addresses(pid: int) -> set[str]:
    """The addresses on which a process listens for TCP."""
    sockets = psutil.Process(pid).net_connections("tcp")
    return {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN}


@contextlib.contextmanager
def stopped(processes: Iterable[psutil.Process]) -> Iterator[None]:
    """Stop them with SIGSTOP while the block runs; those that survive then continue."""
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def weights(run: RunDirectory, step: int = STEPS) -> dict[str, str]:
    """Checksums of the last checkpoint's files."""
    return checksums(run, step)
