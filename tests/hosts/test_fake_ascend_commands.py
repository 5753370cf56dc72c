"""Two hosts with fake NPUs: `check` looks at both, and a rank table alone is enough to launch on them."""

import json
from collections.abc import Iterator

import pytest

from orchestrator.ascend.rank_table.table import read_rank_table
from orchestrator.job.run_directory import RunDirectory
from sdnet.config import SyntheticConfig
from sdnet.preparation.synthetic import make_tree
from tests.ascend_fakes.host import describe
from tests.hosts.bed import Bed, bed
from tests.hosts.network import why_impossible
from tests.hosts.npus import give_npus

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.integration,
    pytest.mark.skipif(bool(why_impossible()), reason=why_impossible() or "-"),
]

JOB = """
name: looked-at
storage: {storage}
cluster: {{address: auto, device: ascend, soc: 910b, workers: 2}}
train: {{recipe: demo}}
"""
ON_EACH_HOST = {"versions", "clock", "storage", "disk", "shared memory", "memory", "data",
                "left-over processes", "devices", "links", "ports", "ping"}  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[Bed]:
    """Device 3 of each host; the first host's reaches the second's, but not the other way round."""
    with bed(2) as made:
        for number, reachable in ((1, ["192.168.2.4"]), (2, [])):
            npus = describe(number, devices=[3]) | {"reachable": reachable}
            give_npus(made.hosts[number - 1], npus)
        made.start_ray()
        yield made


def test_check_shows_every_row_of_both_hosts_and_the_ping_that_fails(cluster: Bed) -> None:
    job = cluster.storage / "check.yaml"
    job.write_text(JOB.format(storage=cluster.storage))
    process = cluster.sdnet_orchestrate("check", str(job), "--ping", "--json")
    output, _ = process.communicate()
    findings = json.loads(output.splitlines()[-1])["findings"]
    found = {(finding["host"], finding["check"]): finding for finding in findings}
    hosts = {host.address for host in cluster.hosts}
    assert {(host, row) for host in hosts for row in ON_EACH_HOST} <= found.keys()
    assert {row for host, row in found if host == "cluster"} == {"Ray", "group"}
    pings = [found[host.address, "ping"]["state"] for host in cluster.hosts]
    assert pings == ["ok", "fail"] and process.returncode == 1
    assert found["cluster", "group"]["seen"] == "2 ranks on 2 host(s)"


def test_a_rank_table_and_a_folder_of_images_are_all_that_launch_needs(cluster: Bed) -> None:
    images, table = cluster.storage / "images", cluster.storage / "hccl_2p.json"
    make_tree(images, SyntheticConfig(pairs=16, scenes=4))
    servers = [
        {"server_id": host.address, "host_ip": host.address,
         "device": [{"device_id": "3", "device_ip": f"192.168.{number}.4", "rank_id": str(number - 1)}]}
        for number, host in enumerate(cluster.hosts, start=1)
    ]  # fmt: skip
    table.write_text(
        json.dumps({"status": "completed", "version": "1.0", "server_count": "2", "server_list": servers})
    )
    settings = [f"storage={cluster.storage}", "cluster.collective=mccl", "cluster.soc=910b", "train.batch=4",
                "train.epochs=1", "data.split.train=0.5", "evaluate.batch=32"]  # fmt: skip
    overrides = [part for setting in settings for part in ("--set", setting)]
    process = cluster.sdnet_orchestrate(
        "launch", "--rank-table", str(table), "--data", str(images), *overrides
    )
    output, _ = process.communicate()
    assert process.returncode == 0, output
    run = RunDirectory(cluster.storage / "sdnet-2p")
    assert json.loads(run.summary.read_text())["status"] == "succeeded"
    used = read_rank_table(run.plan / "rank_table.json", "910b")
    assert used.to_dict()["server_list"] == servers
