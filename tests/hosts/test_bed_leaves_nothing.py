"""However a bed ends, none of its processes, namespaces and files remains."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.hosts.bed import bed, remove_stale_beds
from tests.hosts.ending import Terminated, ends_by_exception
from tests.hosts.network import ip, why_impossible
from tests.hosts.owner import Owner, is_stale

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.skipif(bool(why_impossible()), reason=why_impossible() or "-"),
]

ROOT = Path(__file__).parents[2]
# Like a Ray daemon: in a session of its own, and only SIGKILL ends it.
WAITS_FOR_EVER = """
import os, signal, threading
os.setsid()
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
print(flush=True)
threading.Event().wait()
"""
MAKES_A_BED_AND_WAITS = f"""
import signal, subprocess, sys, threading
from tests.hosts.bed import bed
from tests.hosts.ending import Terminated
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the test itself may run under nohup
try:
    with bed(hosts=1) as cluster:
        command = [sys.executable, "-c", {WAITS_FOR_EVER!r}]
        child = cluster.head.popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        child.stdout.readline()
        print(cluster.head.pids()[0], flush=True)
        threading.Event().wait()
except Terminated as ended:
    sys.exit(ended.exit_code)
"""


def namespaces() -> set[str]:
    folder = Path("/run/netns")
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def left_of(prefix: str) -> set[str]:
    """Namespaces and directories of the bed whose names begin with this."""
    directories = {path.name for path in Path(tempfile.gettempdir()).glob(f"{prefix}*")}
    return {name for name in namespaces() | directories if name.startswith(prefix)}


@contextmanager
def bed_of_another_process() -> Iterator[tuple["subprocess.Popen[str]", str, int]]:
    """A process that has a bed and waits; yields it, the prefix of its bed, and a process on the host."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAKES_A_BED_AND_WAITS], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        on_the_host = int(process.stdout.readline())
        [switch] = {name for name in namespaces() if re.fullmatch(rf"sdn{process.pid}t[0-9A-F]+s", name)}
        yield process, switch[:-1], on_the_host
    finally:
        process.kill()
        process.communicate()
        remove_stale_beds()


@pytest.mark.parametrize("ends_by", [RuntimeError, KeyboardInterrupt], ids=lambda error: error.__name__)
def test_a_bed_whose_test_fails_or_is_interrupted_is_removed(ends_by: type[BaseException]) -> None:
    with pytest.raises(ends_by), bed(hosts=2) as cluster:
        names = {host.cable.host for host in cluster.hosts}
        directory = cluster.storage.parent
        child = cluster.hosts[1].popen([sys.executable, "-c", WAITS_FOR_EVER], stdout=subprocess.PIPE)
        cluster.hosts[0].impair_link(delay_ms=1)
        assert names < namespaces() and cluster.hosts[1].pids()
        raise ends_by
    assert child.returncode is not None
    assert not names & namespaces() and not directory.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_ends_a_suite_only_after_its_bed_is_removed(number: signal.Signals) -> None:
    with bed_of_another_process() as (process, prefix, on_the_host):
        assert left_of(prefix) and psutil.pid_exists(on_the_host)
        process.send_signal(number)
        assert process.wait(timeout=60) == 128 + number
        assert not left_of(prefix) and not psutil.pid_exists(on_the_host)


@pytest.mark.integration
@pytest.mark.parametrize("program", ["soak.py", "recovery.py"])
def test_a_benchmark_that_is_terminated_leaves_no_ray_behind(program: str) -> None:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "benchmarks" / program)], stderr=subprocess.PIPE, text=True
    )
    try:
        gcs_server = wait_for_descendant(process, "gcs_server")
        process.terminate()
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert errors.splitlines()[-1] == f"{program}: ended by SIGTERM; its hosts are removed"
    assert process.returncode == 128 + signal.SIGTERM
    assert not left_of(f"sdn{process.pid}t") and not gcs_server.is_running()


def wait_for_descendant(ancestor: "subprocess.Popen[str]", name: str) -> psutil.Process:
    """The process of this name among the descendants of `ancestor`, as soon as there is one."""
    while ancestor.poll() is None:
        for process in psutil.Process(ancestor.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name() == name:
                    return process
    raise AssertionError(f"no {name} before the benchmark ended: {ancestor.communicate()}")


def test_a_bed_whose_owner_was_killed_is_removed_at_the_next_start_and_not_before() -> None:
    with bed_of_another_process() as (process, prefix, on_the_host):
        remove_stale_beds()
        assert left_of(prefix) and psutil.pid_exists(on_the_host)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, but not reaped
        assert left_of(prefix) and psutil.pid_exists(on_the_host)
        with bed(hosts=1):
            assert not left_of(prefix) and not psutil.pid_exists(on_the_host)


def test_a_bed_is_stale_although_its_owners_process_id_is_in_use_again() -> None:
    ours = Owner.this_process()
    earlier = Owner(ours.pid, ours.started - 1)
    directory = Path(tempfile.gettempdir()) / earlier.prefix
    directory.mkdir()
    ip("netns", "add", f"{earlier.prefix}h1")
    with bed(hosts=1) as cluster:
        assert not left_of(earlier.prefix)
        assert cluster.head.cable.host in namespaces() and not is_stale(cluster.head.cable.host)


@pytest.mark.parametrize("name", ["sdn", "sdn1", "sdn1h1", "sdnfoo", "sdn1t2h1.old", "sdn99999999t1h1/x"])
def test_a_name_that_is_not_one_of_ours_is_never_stale(name: str) -> None:
    assert not is_stale(name)


def test_a_signal_that_arrives_during_the_removal_takes_effect_after_it() -> None:
    done = []
    with pytest.raises(Terminated, match="ended by SIGTERM"), ends_by_exception() as removal:
        removal.begun = True
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("the removal")
    assert done == ["the removal"]


def test_a_signal_that_was_ignored_before_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ends_by_exception():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
