"""Ends ranks on their own host, where SIGKILL reaches them even when Ray does not.

A frozen rank cannot dump its own stack, and may not obey a request to exit, so another process of its host does both.
"""

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from orchestrator.engine.control.generation import Member
from orchestrator.engine.host.left_over import LeftOver, end_processes
from orchestrator.storage import Storage, StorageError
from orchestrator.telemetry.events import RankEnd

_DUMP_S = 10.0


def end_ranks_here(host: str, members: Sequence[Member], run: str) -> tuple[int, ...]:
    """On a host: kill the ranks that run here and wait; returns the ranks that survive.

    Only a process with the mark of this run and the right start time is killed, because the kernel may have reused
    the pid.
    """
    here = [member for member in members if member.host == host]
    remaining = end_processes([LeftOver(m.pid, f"rank {m.rank}", run, m.started) for m in here])
    return tuple(sorted(member.rank for member in here if member.pid in remaining))


def end_hanging_ranks_here(
    host: str, members: Sequence[Member], run: str, storage: Storage, folder: str
) -> dict[int, RankEnd]:
    """On a host: store the stacks of its ranks as `<folder>rank_<r>.txt`, then kill them.

    All stacks are dumped before the first kill, because the other ranks react when one of them ends.
    """
    here = {member.rank: member.pid for member in members if member.host == host}
    names = {rank: f"{folder}rank_{rank}.txt" for rank in here}
    # At the same time: one that takes its whole time-out must not use up that of the others.
    with ThreadPoolExecutor(max(len(here), 1)) as pool:
        dumps = {rank: pool.submit(_dump, pid, storage, names[rank]) for rank, pid in here.items()}
    problems = {rank: dump.result() for rank, dump in dumps.items()}
    remaining = end_ranks_here(host, members, run)
    return {
        rank: RankEnd(
            rank=rank,
            stacks="" if problems[rank] else names[rank],
            problem=problems[rank],
            gone=rank not in remaining,
        )
        for rank in here
    }


def _dump(pid: int, storage: Storage, name: str) -> str:
    """Store the Python stacks of a process, running or stopped; returns why there are none, or an empty string."""
    # By default py-spy pauses the process. If it is already stopped, that fails or never returns.
    command = [str(Path(sys.executable).with_name("py-spy")), "dump", "--nonblocking", "--pid", str(pid)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_DUMP_S, check=True)
        storage.put(name, done.stdout)
    except subprocess.CalledProcessError as error:
        return " ".join(error.stderr.decode(errors="replace").split())[-200:]
    except (OSError, StorageError, subprocess.TimeoutExpired) as error:
        return str(error)
    return ""
