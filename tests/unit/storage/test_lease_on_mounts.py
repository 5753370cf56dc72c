"""Two launches of one run on mounts that lag and cache, and leases that nobody wrote; the test moves the clock."""

import contextlib
import json
from dataclasses import asdict

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.storage import RunIsOwned, RunLost, StorageError, StorageUnavailable
from orchestrator.storage.lease import Life, life_of, owner_of
from orchestrator.storage.ownership import Ownership
from tests.storage_mounts import Mount, Server
from tests.unit.storage.test_lease import FOR_EVER, TIMES, owner, taken


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


@settings(deadline=None)
@given(
    pauses=st.lists(st.floats(0.5, 100.0), min_size=1, max_size=8),
    asks=st.lists(st.floats(0.0, 90.0), min_size=1, max_size=4),
    lag_s=st.sampled_from([0.0, 20.0, FOR_EVER]),
    cached_s=st.sampled_from([0.0, 25.0]),
    lost_replies=st.integers(0, 3),
)
@example(pauses=[55.0, 10.0], asks=[0.0], lag_s=0.0, cached_s=25.0, lost_replies=0)
def test_two_launches_never_both_publish_and_the_lost_one_stops(
    pauses: list[float], asks: list[float], lag_s: float, cached_s: float, lost_replies: int
) -> None:
    """The first launch renews and publishes after each of the pauses; the second tries to take the run repeatedly."""
    server = Server()
    clock = server.clock
    first, second = (Mount(server, lag_s=lag_s, cached_s=cached_s) for _ in range(2))
    owning = Ownership(taken(first, 1), TIMES, first.launch_clock)
    first.lost_replies = lost_replies
    published: list[float] = []

    def publish() -> None:
        owning.confirm()
        published.append(clock.now())

    def awake() -> None:
        for act in (publish, owning.renew, publish):
            with contextlib.suppress(StorageError, RunLost):
                act()

    at = 0.0
    for pause in pauses:
        at += pause
        clock.at(at, awake)
    taken_at = None
    for ask in asks:
        clock.advance(ask)
        try:
            taken(second, 2)
        except RunIsOwned:
            continue
        taken_at = clock.now()
        break
    written = list(first.writes)
    clock.advance(1000.0)
    if taken_at is None:
        assert owning.lost() is None
    else:
        assert all(at <= taken_at for at in published)
        assert isinstance(owning.lost(), RunLost)
        assert first.writes == written
    if max(pauses) <= 60.0 - cached_s and taken_at is not None:
        # It was silent for a time-out by the second launch's clock, so it can only have ended its pauses.
        assert taken_at - sum(pauses) >= 1000.0 + 60.0 - 1e-6


def test_an_owner_asks_storage_only_when_its_last_heartbeat_is_old() -> None:
    server = Server()
    mount = Mount(server)
    owning = Ownership(taken(mount, 1), TIMES, mount.launch_clock)
    mount.away = True
    server.clock.advance(29.9)
    owning.confirm()
    server.clock.advance(0.2)
    with pytest.raises(StorageUnavailable):
        owning.confirm()
    mount.away = False
    owning.confirm()


def test_a_released_run_is_free_for_others_and_a_release_never_fails() -> None:
    mount = Mount(Server())
    owning = Ownership(taken(mount, 1), TIMES, mount.launch_clock)
    mount.away = True
    owning.end()
    mount.away = False
    assert life_of(mount, 1, TIMES, mount.launch_clock) is Life.SILENT
    owning.end()
    assert life_of(mount, 1, TIMES, mount.launch_clock) is Life.ENDED


def test_after_a_long_pause_an_owner_asks_storage_until_nobody_can_be_waiting_for_the_run() -> None:
    server = Server()
    mount = Mount(server)
    owning = Ownership(taken(mount, 1), TIMES, mount.launch_clock)

    def asks() -> bool:
        mount.away = True
        try:
            owning.confirm()
        except StorageUnavailable:
            return True
        finally:
            mount.away = False
        return False

    server.clock.advance(30.0)
    for _ in range(15):
        owning.renew()
        server.clock.advance(3.9)
        assert asks()
    owning.renew()
    server.clock.advance(3.9)
    assert not asks()


VALUES = st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=5), st.just([]), st.just({"a": 1}))
CORRUPT = st.binary(max_size=20) | st.sampled_from(
    [b"[" * 100_000, b'{"at": 1' + b"0" * 400 + b', "ended": 0}']
)


@settings(max_examples=50, deadline=None)
@given(
    lease=CORRUPT | st.fixed_dictionaries(dict.fromkeys(asdict(owner(1)), VALUES)).map(as_json),
    heartbeat=CORRUPT | st.fixed_dictionaries({"at": VALUES, "ended": VALUES}).map(as_json),
)
def test_whatever_a_lease_and_its_heartbeat_hold_every_launch_can_read_them(
    lease: bytes, heartbeat: bytes
) -> None:
    mount = Mount(Server())
    mount.server.objects |= {"lease/000001": lease, "lease/000001.heartbeat": heartbeat}
    assert life_of(mount, 1, TIMES, mount.launch_clock) in (Life.SILENT, Life.ENDED) and owner_of(mount, 1)
