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

from orchestrator.every_host import ask_every_host
from orchestrator.run_directory import RunDirectory
from orchestrator.training.fencing import RankProcess, end_ranks_of

_DUMP_S, _ANSWER_S = 10.0, 40.0


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a rank: the file with its stacks, what went wrong, and whether the process is gone."""

    rank: int
    stacks: str
    problem: str
    gone: bool


def end_ranks(ranks: Mapping[int, RankProcess], run: RunDirectory, stacks: Path) -> tuple[Ended, ...]:
    """Save every rank's stacks to `<stacks>/rank_<r>.txt`, then kill them all; in order of rank.

    A rank whose host does not answer is not gone, as far as anybody knows.
    """
    end = functools.partial(_end_ranks_here, ranks=dict(ranks), run=run, stacks=stacks)
    answers = {answer.address: answer for answer in ask_every_host(end, _ANSWER_S)}
    ended = []
    for rank, process in sorted(ranks.items()):
        answer = answers.get(process.host)
        if answer is not None and answer.value is not None:
            ended.append(answer.value[rank])
        else:
            problem = answer.error if answer else f"host {process.host} is not in the Ray cluster any more"
            ended.append(Ended(rank, "", problem, gone=False))
    return tuple(ended)


def _end_ranks_here(
    host: str, ranks: Mapping[int, RankProcess], run: RunDirectory, stacks: Path
) -> dict[int, Ended]:
    """On a host: all stacks first, because the ranks change once one of them is gone."""
    here = {rank: process.pid for rank, process in ranks.items() if process.host == host}
    problems = {rank: _dump(pid, _stacks_of(rank, stacks)) for rank, pid in here.items()}
    left = end_ranks_of(host, ranks, run)
    return {
        rank: Ended(
            rank=rank,
            stacks="" if problems[rank] else str(_stacks_of(rank, stacks)),
            problem=problems[rank],
            gone=rank not in left,
        )
        for rank in here
    }


def _stacks_of(rank: int, stacks: Path) -> Path:
    return stacks / f"rank_{rank}.txt"


def _dump(pid: int, path: Path) -> str:
    """Write the Python stacks of a process, running or stopped; returns why there are none, or nothing."""
    # Not blocking: py-spy would otherwise wait for a process that is stopped already.
    command = [str(Path(sys.executable).with_name("py-spy")), "dump", "--nonblocking", "--pid", str(pid)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DUMP_S, check=True)
        path.parent.mkdir(exist_ok=True)
        path.write_text(done.stdout, encoding="utf-8")
    except subprocess.CalledProcessError as error:
        return " ".join(error.stderr.split())[-200:]
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return ""
