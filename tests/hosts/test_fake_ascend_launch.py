"""An Ascend job over hosts with fake NPUs, up to the call into HCCL; it continues after a host dies."""

import json
import os
from pathlib import Path

import psutil
import pytest

from orchestrator.ascend.rank_table.table import SuperPod, read_rank_table
from orchestrator.telemetry.events import GroupStarted, RankJoined
from tests.ascend_fakes.host import describe
from tests.hosts.bed import bed
from tests.hosts.network import why_impossible
from tests.hosts.npus import give_npus
from tests.hosts.test_bed import QUICK_TO_NOTICE
from tests.launching import events_of, wait_for

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.integration,
    pytest.mark.skipif(bool(why_impossible()), reason=why_impossible() or "-"),
]

JOB = """
name: rehearsal
cluster: {address: auto, device: ascend, collective: mccl, soc: a3, workers: [2, 3]}
data:
  synthetic: {pairs: 16, scenes: 4}
  patches: {per_pair: 6}
  split: {train: 0.5}
train: {recipe: demo, epochs: 3, batch: 8}
checkpoint: {every_s: 0, keep: 2}
evaluate: {every_epochs: 3, batch: 32}
"""


def ranks(table: Path) -> list[tuple[str, str, str, str]]:
    """Server, physical id, address and rank of each device of the table."""
    servers = json.loads(table.read_text())["server_list"]
    return [
        (server["server_id"], device["device_id"], device["device_ip"], device["rank_id"])
        for server in servers
        for device in server["device"]
    ]


def test_the_rank_table_has_the_remaining_devices_after_a_host_dies() -> None:
    with bed(3, QUICK_TO_NOTICE) as cluster:
        _, kept, lost = cluster.hosts
        # Ranks follow the super pods and not the addresses, so the host that dies has rank 0.
        give_npus(kept, describe(2, soc="a3", devices=[1, 2], pod="9"))
        give_npus(lost, describe(3, soc="a3", devices=[5], pod="1"))
        cluster.start_ray()
        process, run = cluster.launch(JOB)
        wait_for(run, GroupStarted)
        joined = events_of(run, RankJoined)
        assert [event.host for event in joined] == [lost.address, kept.address, kept.address]
        neighbours = [set(psutil.Process(event.pid).cpu_affinity() or ()) for event in joined[1:]]
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
        last = events_of(run, GroupStarted)[-1]
        assert newest.read_text() == (run.plan / f"rank_table.{last.generation}.json").read_text()
        summary = json.loads(run.summary.read_text())
        assert summary["status"] == "succeeded" and summary["restarts"] >= 1
