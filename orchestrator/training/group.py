"""The life of a training group, as the controller sees it: told to events.jsonl, and watched.

Runs inside Ray Train's controller actor, never in a worker.
"""

import logging
import os
import time
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import ray
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2.api.exceptions import WorkerGroupError

from orchestrator.events import EventLog
from orchestrator.processes import start_ticks
from orchestrator.recovery.watchdog import Hang, RankPulse, find_hang, find_stragglers, step_timeout_s
from orchestrator.run_directory import RunDirectory
from orchestrator.training.backend import scheduler_lost
from orchestrator.training.fencing import RankProcess
from orchestrator.training.pulse import Pulse, read_pulse
from orchestrator.training.standstill import end_ranks

logger = logging.getLogger(__name__)

_ASK_EVERY_S = 1.0
_START_ANSWER_S = 10.0
_STEPS_REMEMBERED = 32


class GroupHangs(WorkerGroupError):
    """A group that stands still; `rank` is the first one that is behind."""

    def __init__(self, rank: int, host: str, message: str):
        super().__init__(message, {})
        self.rank, self.host, self.message = rank, host, message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.rank, self.host, self.message)

    def __str__(self) -> str:
        return self.message


class SchedulerLost(GroupHangs):
    """The group's scheduler process ended before the group did. Example: somebody killed it."""


class GroupWatch(WorkerGroupCallback):
    """Tells of each generation, and asks every rank once a second what it is at.

    step: the most global steps that a rank of this generation was heard to have done. hosts:
    where each rank runs. Both outlive the generation, for those who decide about its failure.
    """

    def __init__(self, events: EventLog, generation: int, timeout_s: float | None):
        self._made_of = (events, generation, timeout_s)
        self._events, self._timeout_s = events, timeout_s
        self.generation, self.step = generation, 0
        self.hosts: dict[int, str] = {}
        self._reset()

    def __reduce__(self) -> tuple[Any, ...]:
        # Ray sends callbacks and failure policy to the controller one by one; both mean this one.
        return watch_of, self._made_of

    def _reset(self) -> None:
        self._workers: list[Any] = []
        self._asked: dict[int, tuple[Any, float]] = {}
        self._pulses: dict[int, tuple[Pulse, float]] = {}
        self._stragglers: set[int] = set()
        self._step_times: list[float] = []
        self._last_step: tuple[int, float] | None = None
        self._next_ask = 0.0

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        self._reset()
        self.generation += 1
        self._events.emit(
            "group_starting", generation=self.generation, world_size=worker_group_context.num_workers
        )

    def before_init_train_context(self, workers: list[Any]) -> dict[str, list[Any]]:
        self._events.emit("workers_started", generation=self.generation)
        return {}

    def after_worker_group_start(self, worker_group: Any) -> None:
        self._workers = worker_group.get_workers()
        self.hosts = {rank: worker.metadata.node_ip for rank, worker in enumerate(self._workers)}
        started = _start_of_each(self._workers)
        for rank, worker in enumerate(self._workers):
            host, pid = self.hosts[rank], worker.metadata.pid
            self._events.emit("rank_joined", rank=rank, host=host, pid=pid, started=started[rank])
        self._events.emit(
            "group_started",
            generation=self.generation,
            world_size=len(self._workers),
            hosts=sorted(set(self.hosts.values())),
        )

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        now = time.monotonic()
        if worker_group_status.errors or now < self._next_ask:
            return
        self._next_ask = now + _ASK_EVERY_S
        self._hear(now)
        self._ask(now)
        self._tell_stragglers()
        timeout_s = self._timeout_s or step_timeout_s(self._step_times)
        hang = find_hang(self._as_heard(now), timeout_s)
        if hang is not None:
            self._end(hang)

    def before_worker_group_shutdown(self, worker_group: Any) -> None:
        # A rank that hangs, or whose host is gone, would not answer Ray Train's good-bye.
        for worker in worker_group.get_workers():
            ray.kill(worker.actor)

    def _ask(self, now: float) -> None:
        for rank, worker in enumerate(self._workers):
            if rank not in self._asked:
                self._asked[rank] = (worker.execute_async(_report), now)

    def _hear(self, now: float) -> None:
        answers = {answer: rank for rank, (answer, _) in self._asked.items()}
        ready, _ = ray.wait(list(answers), num_returns=len(answers), timeout=0) if answers else ([], [])
        for answer in ready:
            rank = answers[answer]
            try:
                pulse, lost = ray.get(answer)
            except ray.exceptions.RayError:
                continue  # the rank is dead: Ray Train's own poll tells of it, with the cause
            del self._asked[rank]
            self._pulses[rank] = (pulse, now)
            if lost:
                host = self.hosts[rank]
                raise SchedulerLost(rank, host, f"the MindSpore scheduler on {host} has ended")
        self._measure(now)

    def _measure(self, now: float) -> None:
        """Learn the usual step time from how far the ranks have come since they were last heard."""
        step = max((pulse.step for pulse, _ in self._pulses.values()), default=0)
        self.step = max(self.step, step)
        if any(pulse.phase != "stepping" for pulse, _ in self._pulses.values()):
            self._last_step = None
        elif self._last_step is None:
            self._last_step = (step, now)
        elif step > self._last_step[0]:
            steps = step - self._last_step[0]
            self._step_times = [*self._step_times, (now - self._last_step[1]) / steps][-_STEPS_REMEMBERED:]
            self._last_step = (step, now)

    def _tell_stragglers(self) -> None:
        """Tell of each rank that is much slower than the others, once a generation."""
        work_s = {rank: pulse.work_s for rank, (pulse, _) in self._pulses.items() if pulse.work_s}
        for rank, factor in find_stragglers(work_s).items():
            if rank not in self._stragglers:
                self._stragglers.add(rank)
                self._events.emit("straggler", rank=rank, host=self.hosts[rank], factor=round(factor, 1))

    def _as_heard(self, now: float) -> dict[int, RankPulse]:
        """Each rank's last word, aged by the time since it was heard."""
        heard = {}
        for rank, (pulse, at) in self._pulses.items():
            asked = self._asked.get(rank)
            silent = now - asked[1] if asked else 0.0
            heard[rank] = RankPulse(pulse.phase, pulse.step, pulse.since_s + now - at, silent)
        return heard

    def _end(self, hang: Hang) -> None:
        """Tell who hangs, look into all ranks, kill them, and hand the failure to the policy."""
        rank = hang.ranks[0]
        host = self.hosts[rank]
        self._events.emit("hang_found", ranks=list(hang.ranks), step=hang.step, host=host)
        run = RunDirectory(self._events.path.parent)
        processes = {
            number: RankProcess(self.hosts[number], worker.metadata.pid)
            for number, worker in enumerate(self._workers)
        }
        ended = end_ranks(processes, run, run.logs / f"stacks.{self.generation}")
        self._events.emit("group_ended", generation=self.generation, ranks=[asdict(one) for one in ended])
        raise GroupHangs(
            rank, host, f"rank(s) {list(hang.ranks)} stand at step {hang.step} for {hang.waited_s:.0f} s"
        )


@lru_cache(maxsize=1)
def watch_of(events: EventLog, generation: int, timeout_s: float | None) -> GroupWatch:
    """The watch of this process: asked again for the same group, it is the same object."""
    return GroupWatch(events, generation, timeout_s)


def _start_of_each(workers: list[Any]) -> list[int | None]:
    """When each rank's process started: an id alone does not name a process for ever."""
    asked = [worker.execute_async(_own_start) for worker in workers]
    try:
        return ray.get(asked, timeout=_START_ANSWER_S)
    except ray.exceptions.RayError:
        return [None] * len(workers)  # a rank has died: Ray Train's next poll reports it


def _own_start() -> int | None:
    """On a worker."""
    return start_ticks(os.getpid())


def _report() -> tuple[Pulse, bool]:
    """On a worker: its pulse, and whether it has lost the scheduler that it owns."""
    return read_pulse(), scheduler_lost()
