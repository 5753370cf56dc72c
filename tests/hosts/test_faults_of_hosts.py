"""Hosts and links fail under a launch: the fault is reported, and the run ends with the same bytes."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest

from orchestrator.job.run_directory import RunDirectory
from orchestrator.telemetry.events import (
    FailureDetected,
    FirstStep,
    GroupStarted,
    RankJoined,
    Resumed,
    RunFinished,
    Straggler,
)
from tests.hosts.bed import Bed
from tests.hosts.host import Host
from tests.hosts.jobs import ended_well, host_of, launch, weights
from tests.hosts.network import why_impossible
from tests.launching import NoteSeconds, events_of, wait_for, wait_for_checkpoint

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.integration,
    pytest.mark.soak,
    pytest.mark.skipif(bool(why_impossible()), reason=why_impossible() or "-"),
]


def failed_over(run: RunDirectory, lost: str) -> None:
    """One failure, the loss of that host, and a group of full size on the others."""
    [failure] = events_of(run, FailureDetected)
    assert (failure.kind, failure.host) == ("host_lost", lost)
    last = events_of(run, GroupStarted)[-1]
    assert last.world_size == 2 and lost not in last.hosts


@contextmanager
def slowed(process: psutil.Process) -> Iterator[None]:
    """Let the process run for a fifth of the time only."""
    over = threading.Event()

    def stop_and_go() -> None:
        while not over.wait(0.02):
            process.suspend()
            over.wait(0.08)
            process.resume()

    metronome = threading.Thread(target=stop_and_go)
    metronome.start()
    try:
        yield
    finally:
        over.set()
        metronome.join()


def test_a_rank_that_is_slower_than_the_others_is_named_with_its_host(
    cluster: Bed, clean: RunDirectory
) -> None:
    process, run = launch(cluster, "straggling", epochs=20)
    host = host_of(cluster, run, 1)
    slow = wait_for(run, RankJoined, lambda joined: joined.rank == 1).pid
    wait_for(run, FirstStep)
    with slowed(psutil.Process(slow)):
        straggler = wait_for(run, Straggler)
    assert (straggler.rank, straggler.host) == (1, host.address) and straggler.factor >= 2
    ended_well(process)
    assert len(events_of(run, Straggler)) == 1 and not events_of(run, FailureDetected)


def test_a_slow_and_lossy_link_is_no_failure(cluster: Bed, clean: RunDirectory) -> None:
    # Steps take 8 to 17 s on this link. Retransmissions can add more, and `auto` allows 20 s.
    process, run = launch(cluster, "lossy", step_timeout_s=120)
    host = host_of(cluster, run, 1)
    wait_for_checkpoint(run, 2)
    host.impair_link(delay_ms=200, loss_percent=5)
    wait_for_checkpoint(run, 6)
    assert not events_of(run, RunFinished)
    host.clear_link()
    ended_well(process)
    assert not events_of(run, FailureDetected) and len(events_of(run, GroupStarted)) == 1
    assert weights(run) == weights(clean)


@pytest.mark.parametrize("rank", [0, 1])
def test_the_host_of_a_rank_is_killed(
    cluster: Bed, clean: RunDirectory, rank: int, note_seconds: NoteSeconds
) -> None:
    process, run = launch(cluster, f"without-host-of-{rank}")
    host = host_of(cluster, run, rank)
    wait_for_checkpoint(run, 2)
    killed_at = time.time()
    host.kill()
    ended_well(process)
    assert host.pids() == []
    failed_over(run, host.address)
    note_seconds(run, killed_at)
    assert weights(run) == weights(clean)
    cluster.restart(host)


def test_the_host_of_the_launcher_and_the_controller_is_killed_and_the_job_launched_again_from_another(
    cluster: Bed, clean: RunDirectory, note_seconds: NoteSeconds
) -> None:
    host = cluster.hosts[1]
    process, run = launch(cluster, "launched-again", on=host)
    wait_for(run, FirstStep)
    [controller] = host.processes("ray::GroupController")
    wait_for_checkpoint(run, 2)
    killed_at = time.time()
    host.kill()
    process.wait()
    assert not controller.is_running() and not events_of(run, RunFinished)
    again, _ = launch(cluster, "launched-again", on=cluster.hosts[2])
    ended_well(again)
    [resumed] = events_of(run, Resumed)
    assert resumed.step >= 2
    assert host.address not in events_of(run, GroupStarted)[-1].hosts
    note_seconds(run, killed_at)
    assert weights(run) == weights(clean)
    cluster.restart(host)


def test_the_head_is_lost_and_the_job_launched_again_on_a_cluster_of_the_others(
    cluster: Bed, clean: RunDirectory, note_seconds: NoteSeconds
) -> None:
    process, run = launch(cluster, "headless")
    wait_for_checkpoint(run, 2)
    lost_at = time.time()
    cluster.head.lose_power()
    process.wait()
    assert not events_of(run, RunFinished)
    # What an operator does on the remaining hosts: end the old Ray, start a new one.
    others = Bed(cluster.hosts[1:], cluster.storage)
    for host in others.hosts:
        host.kill()
    others.start_ray()
    again, _ = launch(others, "headless")
    ended_well(again)
    [resumed] = events_of(run, Resumed)
    assert resumed.step >= 2
    assert set(events_of(run, GroupStarted)[-1].hosts) <= {host.address for host in others.hosts}
    note_seconds(run, lost_at)
    assert weights(run) == weights(clean)
    for host in others.hosts:
        host.kill()
    cluster.head.heal_link()
    cluster.start_ray()


def end_raylet(host: Host) -> None:
    """Send SIGTERM to the raylet alone, as an operator or a service manager does."""
    [raylet] = host.processes("raylet")
    raylet.terminate()
    raylet.wait(timeout=60)


@pytest.mark.parametrize("lose", [Host.cut_link, end_raylet], ids=lambda lose: lose.__name__)
def test_a_host_whose_link_stays_down_or_whose_raylet_gets_sigterm_is_left_out(
    cluster: Bed, clean: RunDirectory, note_seconds: NoteSeconds, lose: Callable[[Host], None]
) -> None:
    process, run = launch(cluster, lose.__name__.replace("_", "-"))
    host = host_of(cluster, run, 1)
    wait_for_checkpoint(run, 2)
    lost_at = time.time()
    lose(host)
    ended_well(process)
    failed_over(run, host.address)
    note_seconds(run, lost_at)
    assert weights(run) == weights(clean)
    host.kill()
    cluster.restart(host)


def test_a_host_whose_link_comes_back_too_late_ends_its_ranks(
    cluster: Bed, clean: RunDirectory, note_seconds: NoteSeconds
) -> None:
    process, run = launch(cluster, "healed")
    host = host_of(cluster, run, 0)
    cut_off = psutil.Process(wait_for(run, RankJoined).pid)
    wait_for_checkpoint(run, 2)
    cut_at = time.time()
    host.cut_link()
    wait_for(run, FailureDetected)
    assert cut_off.is_running()
    host.heal_link()
    _, alive = psutil.wait_procs([cut_off], timeout=60)
    assert not alive
    ended_well(process)
    failed_over(run, host.address)
    note_seconds(run, cut_at)
    assert weights(run) == weights(clean)
    host.kill()
    cluster.restart(host)


def test_a_host_whose_raylet_is_frozen_is_left_out(
    cluster: Bed, clean: RunDirectory, note_seconds: NoteSeconds
) -> None:
    process, run = launch(cluster, "frozen")
    host = host_of(cluster, run, 0)
    rank = psutil.Process(wait_for(run, RankJoined).pid)
    wait_for_checkpoint(run, 2)
    # Ranks need no raylet to step, so the run must last until its loss is detected.
    host.impair_link(delay_ms=100)
    frozen_at = time.time()
    [raylet] = host.freeze("raylet")
    wait_for(run, FailureDetected)
    host.clear_link()
    ended_well(process)
    assert raylet.status() == psutil.STATUS_STOPPED
    failed_over(run, host.address)
    note_seconds(run, frozen_at)
    assert weights(run) == weights(clean)
    host.thaw()
    # Ray ends the processes of a lost host as soon as it can reach them.
    _, alive = psutil.wait_procs([raylet, rank], timeout=60)
    assert not alive
    host.kill()
    cluster.restart(host)
