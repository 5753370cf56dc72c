"""Ends a group that stands still: looks into every rank from outside, then kills it by its host.

A frozen rank cannot tell its own stack, and may not obey a request to exit, so another process of
its host does both.
"""

import functools
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from orchestrator.ascend.fence import LeftOver, end_processes
from orchestrator.every_host import ask_every_host
from orchestrator.run_directory import RunDirectory

_DUMP_S, _ANSWER_S = 10.0, 40.0


@dataclass(frozen=True, slots=True)
class RankProcess:
    """Where a rank runs. host: its address, as Ray knows it."""

    host: str
    pid: int


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a rank: the file with its stacks, why there is none, and whether the process is gone."""

    rank: int
    stacks: str
    problem: str
    gone: bool


def end_ranks(ranks: Mapping[int, RankProcess], run: RunDirectory, stacks: Path) -> tuple[Ended, ...]:
    """Save every rank's stacks to `<stacks>/rank_<r>.txt`, then kill them all; in order of rank.

    Hosts that do not answer are left out: nobody can reach what runs there.
    """
    answers = ask_every_host(functools.partial(_end_ranks_here, dict(ranks), run, stacks), _ANSWER_S)
    ended = [item for answer in answers if answer.value is not None for item in answer.value]
    return tuple(sorted(ended, key=lambda item: item.rank))


def _end_ranks_here(
    ranks: Mapping[int, RankProcess], run: RunDirectory, stacks: Path, host: str
) -> list[Ended]:
    """On a host: all stacks first, because the ranks change once one of them is gone."""
    here = {rank: process.pid for rank, process in ranks.items() if process.host == host}
    stacks.mkdir(parents=True, exist_ok=True)
    dumped = {rank: _dump(pid, stacks / f"rank_{rank}.txt") for rank, pid in here.items()}
    # Only a process with the mark of this run is killed: the id may be another's by now.
    end_processes([LeftOver(pid, f"rank {rank}", str(run.root)) for rank, pid in here.items()])
    return [Ended(rank, *dumped[rank], not psutil.pid_exists(pid)) for rank, pid in here.items()]


def _dump(pid: int, path: Path) -> tuple[str, str]:
    """Write the Python stacks of a process, running or stopped; the file's path, and what went wrong."""
    # Not blocking: py-spy would otherwise wait for a process that is stopped already.
    command = [str(Path(sys.executable).with_name("py-spy")), "dump", "--nonblocking", "--pid", str(pid)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DUMP_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", str(error)
    if done.returncode != 0:
        return "", " ".join(done.stderr.split())[-200:]
    path.write_text(done.stdout, encoding="utf-8")
    return str(path), ""
