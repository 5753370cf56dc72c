"""However a bed ends, no process, namespace or file of it is there afterwards."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.hosts.bed import bed, remove_what_dead_suites_left
from tests.hosts.network import why_impossible

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.skipif(bool(why_impossible()), reason=why_impossible() or "-"),
]

WAITS_FOR_EVER = [sys.executable, "-c", "import threading; print(flush=True); threading.Event().wait()"]
MAKES_A_BED_AND_IS_KILLED = f"""
import os, signal, subprocess
from tests.hosts.bed import bed
with bed(hosts=1) as cluster:
    child = cluster.head.popen({WAITS_FOR_EVER!r}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    child.stdout.readline()
    print(os.getpid(), cluster.head.pids()[0], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def namespaces() -> set[str]:
    folder = Path("/run/netns")
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


@pytest.mark.parametrize("ends_by", [RuntimeError, KeyboardInterrupt], ids=lambda error: error.__name__)
def test_a_bed_whose_test_fails_or_is_interrupted_is_removed(ends_by: type[BaseException]) -> None:
    with pytest.raises(ends_by), bed(hosts=2) as cluster:
        names = {host.cable.host for host in cluster.hosts}
        directory = cluster.storage.parent
        child = cluster.hosts[1].popen(WAITS_FOR_EVER, stdout=subprocess.PIPE)
        cluster.hosts[0].impair_link(delay_ms=1)
        assert names < namespaces() and cluster.hosts[1].pids()
        raise ends_by
    assert child.returncode is not None
    assert not names & namespaces() and not directory.exists()


def test_what_a_killed_suite_left_is_removed_by_the_next() -> None:
    killed = subprocess.run(
        [sys.executable, "-c", MAKES_A_BED_AND_IS_KILLED],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    suite, left = killed.stdout.split()
    assert f"sdn{suite}h1" in namespaces() and psutil.pid_exists(int(left))
    remove_what_dead_suites_left()
    assert not {name for name in namespaces() if name.startswith(f"sdn{suite}")}
    assert not psutil.pid_exists(int(left))
