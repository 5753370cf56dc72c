"""On a host: ends the ranks of a run, saves their stacks first, and leaves other processes alone."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.engine.control.generation import Member
from orchestrator.engine.host.end import end_hanging_ranks_here, end_ranks_here
from orchestrator.engine.host.left_over import RUN_VARIABLE
from orchestrator.process_identity import start_ticks
from orchestrator.storage import DirectoryStorage


@pytest.fixture
def start() -> Iterator[Callable[[str], int]]:
    """Starts a process with the mark of a run; every one is gone after the test."""
    started = []

    def run(mark: str) -> int:
        process = subprocess.Popen(
            [sys.executable, "-c", "print(flush=True); input()"],
            env={RUN_VARIABLE: mark}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == b"\n"
        started.append(process)
        return process.pid

    yield run
    for process in started:
        process.kill()
        process.communicate()


def member(rank: int, host: str, pid: int, started: int | None = None) -> Member:
    return Member(rank=rank, host=host, node=f"node-{host}", pid=pid, started=started)


def has_ended(pid: int) -> bool:
    """Also when its parent, which is this process, has not reaped it yet."""
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_host_ends_the_ranks_that_run_there_and_carry_the_mark(start: Callable[[str], int]) -> None:
    mine, elsewhere, stranger = start("/runs/mine"), start("/runs/mine"), start("/runs/other")
    members = [member(0, "here", mine), member(1, "there", elsewhere), member(2, "here", stranger)]
    assert end_ranks_here("here", members, "/runs/mine") == ()
    assert has_ended(mine) and not has_ended(elsewhere) and not has_ended(stranger)


def test_a_process_that_got_the_pid_of_an_earlier_rank_is_not_killed(start: Callable[[str], int]) -> None:
    new, old = start("/runs/mine"), start("/runs/mine")
    members = [
        member(0, "here", new, started=(start_ticks(new) or 0) - 1),
        member(1, "here", old, started=start_ticks(old)),
    ]
    assert end_ranks_here("here", members, "/runs/mine") == ()
    assert not has_ended(new) and has_ended(old)


def test_the_stacks_of_a_hanging_rank_are_saved_before_it_is_ended(
    tmp_path: Path, start: Callable[[str], int]
) -> None:
    pid = start("/runs/mine")
    ended = end_hanging_ranks_here(
        "here", [member(0, "here", pid)], "/runs/mine", DirectoryStorage(tmp_path), "logs/stacks.3/"
    )
    assert ended[0].stacks == "logs/stacks.3/rank_0.txt" and ended[0].problem == "" and ended[0].gone
    assert "<module>" in (tmp_path / ended[0].stacks).read_text()
    assert has_ended(pid)


def test_the_stacks_of_all_ranks_of_a_host_are_dumped_at_the_same_time(
    tmp_path: Path, start: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each of these two ends only when the other has begun.
    waits = (
        'mkdir -p dumps; touch "dumps/$4"; until [ $(ls dumps | wc -l) = 2 ]; do sleep 0.01; done; echo of $4'
    )
    dump = tmp_path / "py-spy"
    dump.write_text(f'#!/bin/sh\ncd "{tmp_path}"; {waits}\n')
    dump.chmod(0o755)
    pids = [start("/runs/mine"), start("/runs/mine")]
    monkeypatch.setattr("orchestrator.engine.host.end.sys.executable", str(tmp_path / "python"))
    members = [member(rank, "here", pid) for rank, pid in enumerate(pids)]
    ended = end_hanging_ranks_here("here", members, "/runs/mine", DirectoryStorage(tmp_path), "logs/")
    assert [(tmp_path / ended[rank].stacks).read_text() for rank in (0, 1)] == [f"of {pid}\n" for pid in pids]
    assert all(map(has_ended, pids))


def test_a_rank_whose_stacks_cannot_be_written_is_still_ended(
    tmp_path: Path, start: Callable[[str], int]
) -> None:
    pid = start("/runs/mine")
    (tmp_path / "logs").touch()  # where the folder should be
    ended = end_hanging_ranks_here(
        "here", [member(4, "here", pid)], "/runs/mine", DirectoryStorage(tmp_path), "logs/stacks.3/"
    )
    assert ended[4].stacks == "" and "stacks.3" in ended[4].problem and ended[4].gone
    assert has_ended(pid)


def test_a_process_that_is_not_of_the_run_is_left_alone(tmp_path: Path, start: Callable[[str], int]) -> None:
    pid = start("/runs/other")
    ended = end_hanging_ranks_here(
        "here", [member(3, "here", pid)], "/runs/mine", DirectoryStorage(tmp_path), "logs/"
    )
    assert ended[3].gone and not has_ended(pid)  # the rank has ended, and its pid went to another process
