"""A drill over hosts: one is killed and returns, the link of another is cut, and no byte changes."""

import json
import sys

import pytest

from tests.hosts.bed import bed
from tests.hosts.network import why_impossible
from tests.hosts.test_bed import QUICK_TO_NOTICE

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.integration,
    pytest.mark.skipif(bool(why_impossible()), reason=why_impossible() or "-"),
]

JOB = """
name: survivor
cluster: {address: auto, workers: 2, workers_per_host: 1}
data:
  synthetic: {pairs: 16, scenes: 4}
  patches: {per_pair: 6}
  split: {train: 0.5}
train: {recipe: demo, epochs: 4, batch: 8}
checkpoint: {every_s: 0, keep: 2}
evaluate: {every_epochs: 4, batch: 32}
"""
CUTS_ITS_LINK = """
import json, subprocess, sys
from orchestrator.drill import link

def routes():
    return subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout

address = sys.argv[1]
interface, before = link.interface_of(address), routes()
kept = link.cut(interface)
cut = {"down": link.is_down(interface), "routes": routes()}
link.heal(interface, kept)
healed = {"down": link.is_down(interface), "same": routes() == before}
print(json.dumps([link.why_it_cannot_be_cut(address), link.why_it_cannot_be_cut("127.0.0.1"), cut, healed]))
"""


def test_a_link_that_was_cut_and_healed_has_its_routes_again() -> None:
    with bed(hosts=1) as cluster:
        said = cluster.head.run([sys.executable, "-c", CUTS_ITS_LINK, cluster.head.address])
    own, loopback, cut, healed = json.loads(said)
    assert own == "" and loopback == "127.0.0.1 is on the loopback interface"
    assert cut == {"down": True, "routes": ""}
    assert healed == {"down": False, "same": True}


@pytest.mark.soak
def test_hosts_lost_in_a_drill_come_back_and_the_run_ends_with_the_same_bytes() -> None:
    with bed(3, QUICK_TO_NOTICE) as cluster:
        cluster.start_ray()
        job = cluster.storage / "job.yaml"
        job.write_text(f"storage: {cluster.storage}\n{JOB}")
        process = cluster.sdnet_orchestrate(
            "drill", str(job), "--faults", "kill-host,partition", "--count", "2", "--json",
            "--set", "train.epochs=80", "--set", "evaluate.every_epochs=80",
        )  # fmt: skip
        output, _ = process.communicate()
        assert process.returncode == 0, output
        report = json.loads(output.splitlines()[-1])
        assert (report["injected"], report["status"], report["same_bytes"]) == (2, "succeeded", True)
        faults = {fault["fault"]: fault for fault in report["faults"]}
        assert "processes below it are gone, the host is back" in faults["kill-host"]["proof"]
        assert "eth0 was down for 12 s, the host is back" in faults["partition"]["proof"]
        assert all(fault["host"] != cluster.head.address for fault in report["faults"])
        # By their own names: for their first second a raylet's agents name it among their arguments.
        names = {host.address: [one.name() for one in host.processes("raylet")] for host in cluster.hosts}
        assert {host: raylets.count("raylet") for host, raylets in names.items()} == dict.fromkeys(names, 1)
        assert not any(host.processes("orchestrator.drill.agent") for host in cluster.hosts)
