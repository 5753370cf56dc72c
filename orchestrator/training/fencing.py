"""The fence between two generations: the next starts when the ranks of the last are gone.

A rank that still runs would write checkpoints, hold devices and answer for its successor.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.v2._internal.execution.callback import WorkerGroupCallback

from orchestrator.ascend.fence import LeftOver, end_processes
from orchestrator.errors import OrchestratorError
from orchestrator.events import EventLog
from orchestrator.every_host import ask_every_host
from orchestrator.run_directory import RunDirectory

_ANSWER_S = 10.0


@dataclass(frozen=True, slots=True)
class RankProcess:
    """Which process a rank is. host: its address, as Ray knows it. started: as `start_ticks`, if known."""

    host: str
    pid: int
    started: int | None = None


class RanksStillRun(OrchestratorError):
    """Ranks of the last generation do not end. Example: a process waits for a dead disk in the kernel."""

    def __init__(self, ranks: tuple[int, ...], hosts: tuple[str, ...]):
        super().__init__(ranks, hosts)
        self.ranks, self.hosts = ranks, hosts

    def __str__(self) -> str:
        return (
            f"ranks {list(self.ranks)} of the last generation still run on {', '.join(self.hosts)} after "
            "SIGKILL; end those processes (another user may own them), or restart the hosts"
        )


class Fence(WorkerGroupCallback):
    """Stands between any two generations of a run, those of an earlier launch included.

    Must come after `RankOrder`, to know the ranks by the numbers that everybody else uses.
    """

    def __init__(self, events: EventLog):
        self._events = events
        self._ranks = _ranks_of_last_generation(events)

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        if self._ranks:
            unreachable = fence(self._ranks, RunDirectory(self._events.path.parent))
            self._events.emit("fenced", ranks=sorted(self._ranks), unreachable=list(unreachable))
            self._ranks = {}

    def before_init_train_context(self, workers: list[Any]) -> dict[str, list[Any]]:
        # Now, and not when they have met: ranks that never meet must be fenced, too.
        self._ranks = {
            rank: RankProcess(worker.metadata.node_ip, worker.metadata.pid)
            for rank, worker in enumerate(workers)
        }
        return {}


def fence(ranks: Mapping[int, RankProcess], run: RunDirectory) -> tuple[str, ...]:
    """Make sure that these ranks are gone on every host that can be reached; returns the other hosts.

    A host that Ray has given up cannot be asked: its ranks are cut off with it, and their group's
    port and scheduler are never used again. Raises RanksStillRun.
    """
    hosts = {process.host for process in ranks.values()}
    end = functools.partial(end_ranks_of, ranks=dict(ranks), run=run)
    own = ray.util.get_node_ip_address()
    # A task on this host, too, would cost a restart the seconds that its process takes to start.
    others = hosts - {own}
    asked = ask_every_host(end, _ANSWER_S, only=others) if others else ()
    answers = {own: end(own)} | {one.address: one.value for one in asked}
    left = tuple(sorted(rank for value in answers.values() for rank in value or ()))
    if left:
        raise RanksStillRun(left, tuple(sorted({ranks[rank].host for rank in left})))
    return tuple(sorted(host for host in hosts if answers.get(host) is None))


def end_ranks_of(host: str, ranks: Mapping[int, RankProcess], run: RunDirectory) -> tuple[int, ...]:
    """On a host: kill those of the ranks that run here, and wait; returns the ones that stay."""
    here = {rank: process for rank, process in ranks.items() if process.host == host}
    # The start time and the mark of this run make sure that the id is not another process's by now.
    mine = [
        LeftOver(process.pid, f"rank {rank}", str(run.root), process.started)
        for rank, process in here.items()
    ]
    left = end_processes(mine)
    return tuple(sorted(rank for rank, process in here.items() if process.pid in left))


def _ranks_of_last_generation(events: EventLog) -> dict[int, RankProcess]:
    """What may be left of a launch that was killed: Ray ends its workers, but not at once."""
    ranks: dict[int, RankProcess] = {}
    for event in events.read():
        if event["event"] == "group_starting":
            ranks = {}
        elif event["event"] == "rank_joined":
            ranks[event["rank"]] = RankProcess(event["host"], event["pid"], event.get("started"))
    return ranks
