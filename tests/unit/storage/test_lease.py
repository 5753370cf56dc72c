"""Who owns a run, on mounts that lag and fail, with a clock that the test moves."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.process_identity import process_mark
from orchestrator.storage import RunIsOwned, RunLost, StorageUnavailable
from orchestrator.storage.lease import (
    Clock,
    Lease,
    LeaseTimes,
    Life,
    Owner,
    life_of,
    newest_lease,
    read_owner,
    take,
)
from tests.storage_mounts import Mount, Server

TIMES = LeaseTimes(renew_every_s=2.0, timeout_s=60.0)
FOR_EVER = 1e9


def owner(number: int, host: str = "") -> Owner:
    """A launch on a host of its own, whose processes this host cannot see."""
    return Owner(
        id=f"launch {number}", host=host or f"h{number}", pid=number, mark=f"boot{number} 1 1", since=1e9
    )


def taken(mount: Mount, number: int) -> Lease:
    return take(mount, owner(number), TIMES, mount.launch_clock)


def renew_every(mount: Mount, lease: Lease, seconds: float, times: int) -> None:
    """Let the owner renew its heartbeat while others wait."""
    for count in range(1, times + 1):
        mount.server.clock.at(seconds * count, lambda count=count: lease.renew(count, 0.0))  # type: ignore[misc]


def test_the_first_launch_owns_the_run_and_its_lease_says_who_it_is() -> None:
    mount = Mount(Server())
    lease = taken(mount, 1)
    assert lease.number == 1 and read_owner(mount, 1) == owner(1)
    assert json.loads(mount.get("lease/000001"))["id"] == "launch 1"
    lease.check()


def test_a_second_launch_is_refused_while_the_heartbeat_changes_and_names_the_owner() -> None:
    server = Server()
    lease = taken(Mount(server), 1)
    renew_every(Mount(server), lease, 2.0, 50)
    began = server.clock.now()
    with pytest.raises(RunIsOwned) as refused:
        taken(Mount(server), 2)
    assert server.clock.now() - began <= 2.0 + 0.5  # at the first heartbeat that it sees
    assert str(refused.value) == (
        f"/runs/j is being run by {owner(1)}; wait for it, stop it, or give this job another `name`"
    )
    assert str(owner(1)).startswith("process 1 on h1 since 2001-09-0")
    assert newest_lease(Mount(server)) == 1


def test_a_silent_owner_is_replaced_after_the_time_out_of_the_second_launch_and_not_before() -> None:
    server = Server()
    first = taken(Mount(server), 1)
    server.clock.advance(1e6)  # the age of the heartbeat means nothing: the owner has another clock
    began = server.clock.now()
    assert taken(Mount(server), 2).number == 2
    assert 60.0 <= server.clock.now() - began <= 61.0
    with pytest.raises(RunLost) as lost:
        first.check()
    assert f"lost the run /runs/j to {owner(2)}" in str(lost.value)


def test_a_heartbeat_just_before_the_time_out_keeps_the_run() -> None:
    server = Server()
    lease = taken(Mount(server), 1)
    server.clock.at(59.9, lambda: lease.renew(1, 0.0))
    with pytest.raises(RunIsOwned):
        taken(Mount(server), 2)


def test_a_released_run_can_be_taken_at_once() -> None:
    server = Server()
    taken(Mount(server), 1).renew(1, 0.0, ended=True)
    began = server.clock.now()
    assert taken(Mount(server), 2).number == 2 and server.clock.now() == began


def test_a_run_whose_launcher_was_killed_on_this_host_can_be_taken_at_once() -> None:
    mount = Mount(Server())
    process = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    killed = replace(owner(1), mark=process_mark(process.pid))
    take(mount, killed, TIMES, mount.launch_clock)
    process.kill()
    # Not reaped: a killed process stays in the process table until its parent waits for it.
    while life_of(mount, 1, TIMES, mount.launch_clock) is not Life.KILLED:
        os.sched_yield()
    began = mount.server.clock.now()
    assert taken(mount, 2).number == 2 and mount.server.clock.now() == began
    process.communicate()


def test_a_living_launcher_of_this_host_is_seen_at_once() -> None:
    mount = Mount(Server())
    take(mount, replace(owner(1), mark=process_mark(os.getpid())), TIMES, mount.launch_clock)
    began = mount.server.clock.now()
    with pytest.raises(RunIsOwned):
        taken(mount, 2)
    assert mount.server.clock.now() == began


def test_a_launcher_of_this_host_that_is_stopped_is_replaced_after_the_time_out() -> None:
    mount = Mount(Server())
    take(mount, replace(owner(1), mark=process_mark(os.getpid())), TIMES, mount.launch_clock)
    mount.server.clock.advance(31.0)
    began = mount.server.clock.now()
    assert taken(mount, 2).number == 2 and mount.server.clock.now() - began >= 60.0


def test_leases_that_no_listing_shows_are_found_by_name() -> None:
    server = Server()
    lagging = Mount(server, lag_s=FOR_EVER)
    for number in (1, 2, 3):
        taken(Mount(server), number).renew(1, 0.0, ended=True)
    assert lagging.list("lease/") == [] and newest_lease(lagging) == 3
    assert taken(lagging, 4).number == 4
    with pytest.raises(RunLost, match="process 4 on h4"):
        Lease(lagging, 2, owner(2)).check()


@pytest.mark.parametrize("content", [b"", b'{"id": "x"', b"[]", b'{"id": 3, "unheard": 1}'])
def test_a_lease_without_a_readable_owner_is_taken_over_after_the_time_out(content: bytes) -> None:
    # Its launch was killed, or its disk was full, between making the name and writing the content.
    mount = Mount(Server())
    mount.create("lease/000001", content)
    began = mount.server.clock.now()
    assert taken(mount, 2).number == 2 and mount.server.clock.now() - began >= 60.0


def test_a_launch_recognises_its_lease_when_the_reply_was_lost() -> None:
    mount = Mount(Server(), lost_replies=1)
    assert taken(mount, 1).number == 1 and newest_lease(mount) == 1


def test_unavailable_storage_gives_the_run_to_no_launch() -> None:
    server = Server()
    first, second = Mount(server), Mount(server)
    lease = taken(first, 1)
    server.clock.at(30.0, lambda: setattr(second, "away", True))
    with pytest.raises(StorageUnavailable, match="not connected"):
        taken(second, 2)
    lease.check()
    first.away = True
    with pytest.raises(StorageUnavailable):
        lease.check()


def test_of_two_launches_that_wait_for_the_same_silent_owner_one_gets_the_run() -> None:
    server = Server()
    taken(Mount(server), 1)
    won = []

    def other() -> None:  # it began to wait a moment earlier
        won.append(Lease(Mount(server), 2, owner(2)))
        server.objects["lease/000002"] = b"{}"
        renew_every(Mount(server), won[0], 2.0, 3)

    server.clock.at(59.8, other)
    with pytest.raises(RunIsOwned):
        taken(Mount(server), 3)
    assert newest_lease(Mount(server)) == 2


def test_heartbeats_all_have_one_size() -> None:
    # sshfs caches a file's size for 20 s and cuts off what is longer.
    mount = Mount(Server())
    lease = taken(mount, 1)
    sizes = set()
    for count, now, ended in ((0, 0.0, False), (10**9, 1e9, False), (10**9, 1e9 + 0.123, True)):
        lease.renew(count, now, ended)
        sizes.add(len(mount.get("lease/000001.heartbeat")))
    assert len(sizes) == 1


@given(now=st.floats(0, 1e9))
def test_a_heartbeat_of_this_very_moment_is_a_sign_of_life(now: float) -> None:
    mount = Mount(Server())
    clock = Clock(now=lambda: now)
    take(mount, Owner.this_process(), TIMES, clock)
    assert life_of(mount, 1, TIMES, clock) is Life.ALIVE


def test_a_disk_that_is_full_as_the_lease_is_made_ends_the_launch_and_is_no_other_owner() -> None:
    class Full(Mount):
        """The name is made, and there is no room for its content."""

        def create(self, name: str, content: bytes) -> bool:
            if name in self.server.objects:
                return super().create(name, content)
            self.server.objects[name] = b""
            raise StorageUnavailable(name, "No space left on device")

    mount = Full(Server())
    with pytest.raises(StorageUnavailable, match="No space left"):
        taken(mount, 1)
    assert newest_lease(mount) == 1 and taken(Mount(mount.server), 2).number == 2


def test_a_launch_that_slept_while_it_waited_does_not_think_that_the_owner_was_silent() -> None:
    server = Server()
    lease = taken(Mount(server), 1)
    looks: list[float] = []

    def sleep_long(seconds: float) -> None:
        looks.append(seconds)
        server.clock.advance(1000.0 if len(looks) == 1 else seconds)
        if len(looks) == 3:
            lease.renew(1, 0.0)

    with pytest.raises(RunIsOwned):
        take(Mount(server), owner(2), TIMES, Clock(server.clock.now, sleep_long))
