"""The small job of the fault tests over hosts, its clean run, and checks of its runs."""

import subprocess

from orchestrator.job.run_directory import RunDirectory
from orchestrator.telemetry.events import RankJoined
from tests.hosts.bed import Bed
from tests.hosts.host import RAY, Host
from tests.launching import checksums, reuse_graphs, wait_for

_JOB = """
name: {name}
cluster: {{address: auto, workers: {workers}, workers_per_host: 1}}
data: {data}
train: {{recipe: demo, epochs: {epochs}, batch: 8}}
checkpoint: {{every_s: 0, keep: 2}}
recovery: {{step_timeout_s: {step_timeout_s}}}
evaluate: {{every_epochs: {epochs}, batch: 32}}
"""
_EPOCHS = 8
STEPS = 3 * _EPOCHS  # 8 pairs of 6 patches, 16 per step
_SYNTHETIC = "{synthetic: {pairs: 16, scenes: 4}, patches: {per_pair: 6}, split: {train: 0.5}}"


def run_clean(cluster: Bed) -> RunDirectory:
    """Run the job without a fault; the jobs of `launch` use its data."""
    process, run = cluster.launch(
        _JOB.format(name="clean", workers=2, data=_SYNTHETIC, epochs=_EPOCHS, step_timeout_s="auto")
    )
    ended_well(process)
    return run


def launch(
    cluster: Bed,
    name: str,
    workers: int | list[int] = 2,
    epochs: int = _EPOCHS,
    on: Host | None = None,
    step_timeout_s: int | str = "auto",
) -> tuple["subprocess.Popen[str]", RunDirectory]:
    """Start to launch the job on the data and with the graphs of the clean run, from the host `on` or the head."""
    reuse_graphs(RunDirectory(cluster.storage / "clean"), RunDirectory(cluster.storage / name))
    data = f"{{prepared: {cluster.storage}/clean/data}}"
    job = _JOB.format(name=name, workers=workers, data=data, epochs=epochs, step_timeout_s=step_timeout_s)
    return cluster.launch(job, on)


def ended_well(process: "subprocess.Popen[str]") -> None:
    """Wait for a launch to succeed; on failure the message is its output."""
    output, _ = process.communicate()
    assert process.returncode == 0, output


def weights(run: RunDirectory) -> dict[str, str]:
    """Checksums of the last checkpoint's files."""
    return checksums(run, STEPS)


def host_of(cluster: Bed, run: RunDirectory, rank: int) -> Host:
    """The host of a rank of the first group, as soon as it has joined."""
    joined = wait_for(run, RankJoined, lambda joined: joined.rank == rank)
    return next(host for host in cluster.hosts if host.address == joined.host)


def drain(cluster: Bed, host: Host, seconds: int) -> None:
    """Announce that the host is drained."""
    [raylet] = host.processes("raylet")
    [node_id] = [word.split("=")[1] for word in raylet.cmdline() if word.startswith("--node_id=")]
    cluster.head.run(
        [RAY, "drain-node", "--address", cluster.ray_address, "--node-id", node_id,
         "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "taken away",
         "--deadline-remaining-seconds", str(seconds)]
    )  # fmt: skip
