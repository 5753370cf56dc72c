"""A rank computes on as many CPUs as its job says, and avoids those to which other ranks are pinned."""

import fcntl
import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engine.rank import cpus
from orchestrator.engine.rank.cpus import bind_process, claim_cpus, least_crowded
from orchestrator.errors import InputError

CPUS = st.sets(st.integers(0, 40), min_size=1)


@given(CPUS, st.lists(CPUS), st.data())
def test_the_chosen_cpus_are_those_to_which_the_fewest_processes_are_pinned(
    allowed: set[int], held: list[set[int]], data: st.DataObject
) -> None:
    number = data.draw(st.integers(1, len(allowed)))
    chosen = least_crowded(allowed, held, number)
    crowd = Counter(cpu for cpus in held for cpu in cpus)
    assert len(set(chosen)) == number and set(chosen) <= allowed
    others = allowed - set(chosen)
    assert max(crowd[cpu] for cpu in chosen) <= min((crowd[cpu] for cpu in others), default=len(held))


@given(CPUS)
def test_on_an_idle_host_the_lowest_cpus_are_chosen(allowed: set[int]) -> None:
    assert least_crowded(allowed, [], 1) == (min(allowed),)


def test_more_threads_than_cpus_are_refused() -> None:
    mine = os.sched_getaffinity(0)
    with pytest.raises(
        InputError, match=rf"threads is {len(mine) + 1}, .*only {len(mine)} CPU.*lower threads"
    ):
        claim_cpus(len(mine) + 1)
    assert os.sched_getaffinity(0) == mine


def test_every_thread_of_the_process_is_bound() -> None:
    mine = os.sched_getaffinity(0)
    one = min(mine)
    try:
        bind_process([one])
        bound = [os.sched_getaffinity(thread.id) for thread in psutil.Process().threads()]
    finally:
        bind_process(sorted(mine))
    assert bound and all(cpus == {one} for cpus in bound)


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The lock of this user, in a folder of the test's own; whatever it chose, this process is free again."""
    mine = os.sched_getaffinity(0)
    monkeypatch.setattr(cpus, "_LOCK_FOLDER", tmp_path)
    monkeypatch.setattr(cpus, "_LOCK_WITHIN_S", 0.2)
    yield tmp_path / f"sdnet-cpus-{os.geteuid()}.lock"
    bind_process(sorted(mine))


def test_the_lock_is_a_file_of_this_user_alone_and_gone_afterwards(lock: Path) -> None:
    with cpus._one_at_a_time():
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    assert not lock.exists()


def test_the_lock_of_another_process_delays_a_start_only_for_its_time_out(
    lock: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert len(claim_cpus(1)) == 1
    assert f"{lock} cannot be locked (locked for 0.2 s): ranks that start now may share CPUs" in caplog.text


def test_the_lock_of_the_folder_which_any_user_can_take_delays_nobody(lock: Path) -> None:
    folder = os.open(lock.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with cpus._one_at_a_time():
        assert lock.exists()
    os.close(folder)


@pytest.mark.parametrize("planted", ["link", "folder"])
def test_what_others_have_planted_in_its_place_is_not_opened(
    lock: Path, tmp_path: Path, planted: str, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "target"
    if planted == "link":
        lock.symlink_to(target)
    else:
        lock.mkdir()
    assert len(claim_cpus(1)) == 1
    assert "cannot be locked" in caplog.text and not target.exists()


def test_a_file_system_without_locks_is_reported_and_the_cpus_are_still_chosen(
    lock: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(descriptor: int, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert len(claim_cpus(1)) == 1
    assert "cannot be locked (No locks available)" in caplog.text
