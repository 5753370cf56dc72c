"""An Ascend job over hosts with fake NPUs, up to the call into HCCL, and on when a host of them dies."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.ascend.host_tools import ROOT_VARIABLE
from orchestrator.ascend.rank_table import SuperPod, read_rank_table
from orchestrator.events import EventLog
from orchestrator.report.live import follow
from orchestrator.run_directory import RunDirectory
from tests.ascend_fakes.host import describe, install
from tests.hosts.bed import GCS_PORT, Bed, Host, bed
from tests.hosts.network import why_impossible
from tests.hosts.test_bed import QUICK_TO_NOTICE

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.integration,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(why_impossible()), reason=why_impossible() or "-"),
]

JOB = """
name: rehearsal
storage: {storage}
cluster: {{address: auto, device: ascend, collective: mccl, soc: a3, workers: [2, 3]}}
data:
  synthetic: {{pairs: 16, scenes: 4}}
  patches: {{per_pair: 6}}
  split: {{train: 0.5}}
train: {{recipe: demo, epochs: 3, batch: 8}}
checkpoint: {{every_s: 0, keep: 2}}
evaluate: {{every_epochs: 3, batch: 32}}
"""


def give_npus(host: Host, number: int, pod: str, *dies: int) -> None:
    """A fake A3 host with these dies (physical ids) in a super pod, and a CPU for each in Ray."""
    install(host.directory / "ascend", describe(number, soc="a3", devices=dies, pod=pod))
    host.environment |= {
        ROOT_VARIABLE: str(host.disk / "ascend"),
        "ASCEND_RT_VISIBLE_DEVICES": ",".join(map(str, dies)),
    }
    host.ray_options = (f"--num-cpus={len(dies)}", f'--resources={{"NPU": {len(dies)}}}')


def launch(cluster: Bed) -> "subprocess.Popen[str]":
    job = cluster.storage / "rehearsal.yaml"
    job.write_text(JOB.format(storage=cluster.storage))
    return cluster.head.popen(
        [str(Path(sys.executable).with_name("sdnet-orchestrate")), "launch", str(job)],
        {"RAY_ADDRESS": f"{cluster.head.address}:{GCS_PORT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def wait_for(run: RunDirectory, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    return next(event for event in follow(EventLog(run.events), threading.Event()) if wanted(event))


def ranks(table: Path) -> list[tuple[str, str, str, str]]:
    """Server, physical id, address and rank of each device of the table."""
    servers = json.loads(table.read_text())["server_list"]
    return [
        (server["server_id"], device["device_id"], device["device_ip"], device["rank_id"])
        for server in servers
        for device in server["device"]
    ]


def test_the_rank_table_follows_the_devices_that_are_left_when_a_host_dies() -> None:
    with bed(3, QUICK_TO_NOTICE) as cluster:
        _, kept, lost = cluster.hosts
        # Ranks follow the super pods and not the addresses, so the host that dies has rank 0.
        give_npus(kept, 2, "9", 1, 2)
        give_npus(lost, 3, "1", 5)
        cluster.start_ray()
        process = launch(cluster)
        run = RunDirectory(cluster.storage / "rehearsal")
        wait_for(run, lambda event: event["event"] == "checkpoint_saved")
        joined = [event for event in EventLog(run.events).read() if event["event"] == "rank_joined"]
        assert [event["host"] for event in joined] == [lost.address, kept.address, kept.address]
        neighbours = [set(psutil.Process(event["pid"]).cpu_affinity() or ()) for event in joined[1:]]
        assert os.cpu_count() == 1 or not neighbours[0] & neighbours[1]
        assert ranks(run.plan / "rank_table.1.json") == [
            (f"1/{lost.address}", "5", "192.168.3.6", "0"),
            (f"9/{kept.address}", "1", "192.168.2.2", "1"),
            (f"9/{kept.address}", "2", "192.168.2.3", "2"),
        ]
        lost.kill()
        output, _ = process.communicate()
        assert process.returncode == 0, output
        newest = run.plan / "rank_table.json"
        assert ranks(newest) == [
            (f"9/{kept.address}", "1", "192.168.2.2", "0"),
            (f"9/{kept.address}", "2", "192.168.2.3", "1"),
        ]
        assert read_rank_table(newest, "a3").super_pods == (
            SuperPod(super_pod_id="9", server_ids=(f"9/{kept.address}",)),
        )
        told = EventLog(run.events).read()
        last = [event for event in told if event["event"] == "group_started"][-1]
        assert newest.read_text() == (run.plan / f"rank_table.{last['generation']}.json").read_text()
        summary = json.loads(run.summary.read_text())
        assert summary["status"] == "succeeded" and summary["restarts"] >= 1
