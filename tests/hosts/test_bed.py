"""The test bed works: hosts are isolated, Ray notices the faults, and nothing is left at the end."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.hosts.bed import Bed, bed
from tests.hosts.network import why_impossible

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.integration,
    pytest.mark.skipif(bool(why_impossible()), reason=why_impossible() or "-"),
]

# Ray gives up a silent host after 4 * (1 + 0.5) s, and not after its default minute.
QUICK_TO_NOTICE = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "4",
}
SERVES_ONE = """
import socket
server = socket.create_server(("10.231.0.2", 5000))
print(flush=True)
server.accept()
"""
TIMES_A_ROUND_TRIP = """
import socket, time
began = time.monotonic()
socket.create_connection(("10.231.0.2", 5000), timeout=30)
print(time.monotonic() - began)
"""


class Driver:
    """A Ray driver on the head, which the test controls."""

    def __init__(self, cluster: Bed):
        self._process = cluster.head.popen(
            [sys.executable, str(Path(__file__).with_name("driver.py"))],
            {"RAY_ADDRESS": cluster.ray_address},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __call__(self, do: str, host: str = "") -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, "host": host}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@pytest.fixture(scope="module")
def cluster() -> Iterator[Bed]:
    with bed(hosts=3, settings=QUICK_TO_NOTICE) as made:
        made.start_ray()
        yield made


@pytest.fixture(scope="module")
def driver(cluster: Bed) -> Driver:
    return Driver(cluster)


def started(process: "subprocess.Popen[str]") -> "subprocess.Popen[str]":
    assert process.stdout is not None and process.stdout.readline()
    return process


def test_ray_runs_on_every_host_under_the_hosts_own_address(driver: Driver) -> None:
    assert driver("addresses") == {"ok": ["10.231.0.1", "10.231.0.2", "10.231.0.3"]}
    assert driver("settle", "host2") == {"ok": "10.231.0.2"}
    assert driver("settle", "host3") == {"ok": "10.231.0.3"}


def test_a_host_does_not_see_the_disk_of_another_but_all_see_the_storage(cluster: Bed) -> None:
    first, second = cluster.hosts[:2]
    (first.directory / "mine").touch()
    (cluster.storage / "ours").touch()
    seen = [host.run(["ls", str(host.disk), str(cluster.storage)]).split() for host in (first, second)]
    assert "mine" in seen[0] and "mine" not in seen[1]
    assert "ours" in seen[0] and "ours" in seen[1]


def test_a_delayed_and_lossy_link_is_slow_and_no_host_is_given_up(cluster: Bed, driver: Driver) -> None:
    host = cluster.hosts[1]
    host.impair_link(delay_ms=100, loss_percent=5)
    server = started(host.popen([sys.executable, "-c", SERVES_ONE], stdout=subprocess.PIPE))
    round_trip_s = float(cluster.head.run([sys.executable, "-c", TIMES_A_ROUND_TRIP]))
    answer = driver("ask", "host2")
    host.clear_link()
    assert server.wait(timeout=30) == 0
    assert round_trip_s >= 0.2
    assert answer == {"ok": "10.231.0.2"}
    assert driver("addresses")["ok"] == ["10.231.0.1", "10.231.0.2", "10.231.0.3"]


def test_a_frozen_process_continues_when_it_is_thawed(cluster: Bed, driver: Driver) -> None:
    host = cluster.hosts[2]
    (worker,) = host.freeze("ray::Resident")
    assert worker.status() == psutil.STATUS_STOPPED
    host.thaw()
    assert driver("ask", "host3") == {"ok": "10.231.0.3"}


def test_a_link_that_was_cut_and_healed_soon_costs_nothing(cluster: Bed, driver: Driver) -> None:
    cluster.hosts[1].cut_link()
    cluster.hosts[1].heal_link()
    assert driver("ask", "host2") == {"ok": "10.231.0.2"}


def test_a_host_whose_link_is_cut_is_lost_and_returns_when_it_is_restarted(
    cluster: Bed, driver: Driver
) -> None:
    host = cluster.hosts[1]
    host.cut_link()
    assert driver("stay", "host2") == {"error": "ActorDiedError"}
    assert driver("addresses") == {"ok": ["10.231.0.1", "10.231.0.3"]}
    host.kill()
    cluster.restart(host)
    assert driver("settle", "host2") == {"ok": "10.231.0.2"}


def test_a_host_whose_processes_are_killed_is_lost(cluster: Bed, driver: Driver) -> None:
    host = cluster.hosts[2]
    host.kill()
    assert driver("stay", "host3") == {"error": "ActorDiedError"}
    assert driver("addresses") == {"ok": ["10.231.0.1", "10.231.0.2"]}
    assert host.pids() == []
