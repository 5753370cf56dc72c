"""The owner of one run's group: its generations, one after another, and every decision about them.

Ray Train's controller calls the methods in this order, for each generation:

    starting     fence the last generation, begin the next
    placed       Ray has started the workers: store their processes, so that they can be fenced
    joined       the ranks completed the rendezvous
    tick         again and again while the ranks compute: heartbeats, stragglers, drain, standbys, hang
    ended        the workers are killed
    failed       only after a failure: classify it, wait until storage is back if it was the cause, decide

All of these run in one thread. `leave` comes from another thread, at any time.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from orchestrator.engine.checkpoints import FOLDER
from orchestrator.engine.control.drain import Drain
from orchestrator.engine.control.failures import Failure, FailureKind, GroupHangs
from orchestrator.engine.control.fence import fence
from orchestrator.engine.control.generation import Generation, Member, Phase, members_of, processes_of
from orchestrator.engine.control.hang import Hang
from orchestrator.engine.control.policy import Decision, decide
from orchestrator.engine.control.ports import Clock, Cluster, LaunchStopped, Ranks, poll
from orchestrator.engine.control.standbys import StandbyPool, Standbys
from orchestrator.engine.control.watch import Watch
from orchestrator.engine.messages import Notice, NoticeKind
from orchestrator.storage import RunLost, Storage, StorageError, takes_writes
from orchestrator.telemetry import events
from orchestrator.telemetry.event import Event
from orchestrator.telemetry.state import Attempt, RunState, write_state

logger = logging.getLogger(__name__)

# With the health checks of ray_cluster/session.py, Ray declares a host dead within six seconds.
_HOST_DEATH_S = 8.0
_MAY_BE_A_HOST = (FailureKind.RANK_UNREACHABLE, FailureKind.RANK_CRASHED, FailureKind.START_FAILED)
_CHECK_OWNER_EVERY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSettings:
    """See `RecoveryConfig`. storage_timeout_s: how long the controller waits for storage after a group failed."""

    max_failures: int = 10
    step_timeout_s: float | None = None
    storage_timeout_s: float = 300.0


class GroupControl:
    """Owns the current generation and the run's state.

    check_owner: raises RunLost when another launch owns the run. It is called before each write of the state and every
    few seconds while ranks compute. RunLost ends this group, because the other launch starts its own.
    """

    def __init__(
        self,
        settings: ControlSettings,
        state: RunState,
        *,
        clock: Clock,
        cluster: Cluster,
        storage: Storage,
        record: Callable[[Event], None],
        pool: StandbyPool | None = None,
        check_owner: Callable[[], None] = lambda: None,
    ):
        self._settings, self._clock, self._cluster = settings, clock, cluster
        self._storage, self.record, self._pool = storage, record, pool
        self._check_owner, self._owner_checked_at = check_owner, clock.now()
        self._state = replace(state, attempts=(), ended=None)
        self._state_is_written = True
        self.generation = Generation(state.generation, 0, Phase.ENDED, members_of(state.ranks))
        self.avoid: frozenset[str] = frozenset()
        self._ranks: Ranks | None = None
        self._watch: Watch | None = None
        self._drain: Drain | None = None
        self._standbys: Standbys | None = None
        self._computing_since: float | None = None
        self._leaving = threading.Event()
        self.abandoned = False  # after an abort: failures are its consequence, and are not recorded

    @property
    def failures_and_trained_s(self) -> tuple[int, float]:
        """Failures and seconds of training over all launches of the run; ranks derive the save interval from them."""
        return self._state.failures, self._state.trained_s

    @property
    def ended_because(self) -> str | None:
        """Why the controller gave up, None if it did not. In memory, so it works without storage."""
        return self._state.ended

    @property
    def saved(self) -> str | None:
        """Name of the newest checkpoint that any generation of the run has reported."""
        return self._state.saved

    def starting(self, world_size: int) -> None:
        """Begin the next generation. Raises RanksStillRun, RunLost, or LaunchStopped."""
        if self._leaving.is_set():
            raise LaunchStopped
        self._refuse_lost_run()
        if self.generation.members:
            self.record(fence(self._cluster, self.generation.members))
        with contextlib.suppress(StorageError):  # this only frees space
            self._storage.tidy(FOLDER)  # no rank writes checkpoints now
        self.generation = Generation(self.generation.number + 1, world_size)
        self._save(replace(self._state, generation=self.generation.number, ranks={}))
        self.record(events.GroupStarting(generation=self.generation.number, world_size=world_size))

    def placed(self, members: Sequence[Member]) -> None:
        """Store the ranks' processes before the rendezvous: ranks that never complete it must be fenced, too."""
        self.generation.members = tuple(members)
        self.record(events.WorkersStarted(generation=self.generation.number))
        self._save(replace(self._state, ranks=processes_of(members)))

    def joined(self, ranks: Ranks) -> None:
        """The ranks completed the rendezvous; watch them from now on."""
        generation = self.generation
        self._ranks = ranks
        self._watch = Watch(self._clock, generation, ranks, self._settings.step_timeout_s)
        self._drain = Drain(self._clock, self._cluster, generation, ranks)
        self._standbys = None if self._pool is None else Standbys(self._clock, generation, self._pool)
        self._computing_since = None
        for member in generation.members:
            self.record(
                events.RankJoined(rank=member.rank, host=member.host, pid=member.pid, started=member.started)
            )
        self.record(
            events.GroupStarted(
                generation=generation.number, world_size=generation.world_size, hosts=generation.hosts
            )
        )
        generation.phase = Phase.RUNNING

    def tick(self) -> None:
        """Check the group once a second. Raises GroupHangs, EndedEarly, SchedulerLost, RunLost or LaunchStopped."""
        if self._watch is None or self._drain is None:
            return
        # While the launch ends, the next heartbeat decides whether there are steps to save: do not wait a second.
        if not (self._watch.due() or self._leaving.is_set()):
            return
        if self._clock.now() - self._owner_checked_at >= _CHECK_OWNER_EVERY_S:
            self._refuse_lost_run()
        step = self.generation.step
        self._watch.look()
        if self.generation.step > step and self._computing_since is None:
            self._computing_since = self._clock.now()
        for rank, factor in self._watch.new_stragglers().items():
            host = self.generation.host_of(rank) or ""
            self.record(events.Straggler(rank=rank, host=host, factor=round(factor, 1)))
        if drained := self._drain.look():
            self.record(drained)
        if self._standbys is not None and (ready := self._standbys.look()):
            self.record(ready)
        saved = self.generation.saved or self._state.saved
        if saved != self._state.saved or not self._state_is_written:
            self._save(replace(self._state, saved=saved))
        if hang := self._watch.hang():
            self._end_hanging(hang)

    def ended(self) -> None:
        """Kill the ranks. A request to exit is not enough: a rank that hangs does not answer."""
        self.generation.phase = Phase.ENDED
        if self._ranks is not None:
            self._ranks.kill()
        if self._computing_since is not None:
            trained_s = self._state.trained_s + self._clock.now() - self._computing_since
            self._state = replace(self._state, trained_s=round(trained_s, 3))
        self._ranks = self._watch = self._drain = self._standbys = self._computing_since = None

    def failed(self, failure: Failure) -> Decision:
        """Classify the failure, wait for storage if it was the cause, and decide.

        LaunchStopped and RunLost are not raised: then the decision is STOP.
        """
        if self.abandoned:
            return Decision.STOP
        try:
            return self._decide(failure)
        except (LaunchStopped, RunLost):
            return Decision.STOP

    @property
    def computes(self) -> bool:
        """Whether ranks run the training function."""
        return self._watch is not None and self.generation.phase is Phase.RUNNING

    def leave(self) -> bool:
        """Ask the ranks to save and exit. Returns False while no rank has reported a step: nothing is sent then.

        From now on no generation starts, whatever is returned. The first step may be newer than the last heartbeat,
        so call this again while the group `computes`.
        """
        self._leaving.set()
        ranks, generation = self._ranks, self.generation
        if ranks is None or generation.phase is not Phase.RUNNING or self._watch is None:
            return False
        if not self._watch.steps_reported:
            return False
        self.record(events.Leaving(ranks=generation.world_size))
        ranks.notify(Notice(NoticeKind.STOP, tuple(range(generation.world_size))))
        return True

    def finished(self) -> None:
        """The training function returned on all ranks: remove them from the state, because none must be fenced."""
        with contextlib.suppress(RunLost):  # the launcher checks its ownership itself
            self._save(replace(self._state, ranks={}))

    def _decide(self, failure: Failure) -> Decision:
        self._refuse_lost_run()
        failure = self._with_host_state(failure)
        # A file in place of a missing mount point looks like a blocked path, but the mount may come back.
        if failure.kind is FailureKind.PATH_BLOCKED and not takes_writes(self._storage, ""):
            failure = replace(failure, kind=FailureKind.STORAGE)
        generation = self.generation
        step = generation.step if failure.step is None else failure.step
        self.record(
            events.FailureDetected(
                kind=failure.kind.value,
                rank=failure.rank,
                host=generation.host_of(failure.rank),
                detail=failure.detail,
                step=step,
                generation=generation.number,
            )
        )
        if self._leaving.is_set():
            return Decision.STOP
        if failure.checkpoint is not None:
            self.avoid |= {failure.checkpoint}
        if failure.kind is FailureKind.STORAGE:  # no generation can start until storage accepts writes again
            timeout_s = self._settings.storage_timeout_s
            if not poll(self._clock, timeout_s, lambda: takes_writes(self._storage, FOLDER)):
                return self._give_up(f"storage did not come back within {timeout_s:g} s")
        verdict = decide(failure, step, self._state.attempts, self._settings.max_failures)
        counted = failure.kind is not FailureKind.PREEMPTED
        attempts = (*self._state.attempts, Attempt(kind=failure.kind.value, step=step))
        self._save(replace(self._state, attempts=attempts, failures=self._state.failures + counted))
        if verdict.decision is Decision.STOP:
            return self._give_up(verdict.reason)
        self.record(events.GroupRestarting(reason=verdict.reason))
        return Decision.RESUME

    def _give_up(self, reason: str) -> Decision:
        self.record(events.GivingUp(reason=reason))
        self._save(replace(self._state, ended=reason))
        return Decision.STOP

    def _with_host_state(self, failure: Failure) -> Failure:
        """The failure, with HOST_LOST as its kind if the host of the failed rank, or of a joining rank, has died.

        If the connection just broke, Ray needs some seconds to declare the host dead.
        """
        if failure.kind not in _MAY_BE_A_HOST:
            return failure
        any_rank = failure.kind is FailureKind.START_FAILED
        suspects = [one for one in self.generation.members if any_rank or one.rank == failure.rank]
        patience_s = _HOST_DEATH_S if failure.kind is FailureKind.RANK_UNREACHABLE else 0.0
        alive = self._cluster.alive_hosts
        dead = poll(self._clock, patience_s, lambda: [one for one in suspects if one.host not in alive()])
        if dead:
            return replace(failure, kind=FailureKind.HOST_LOST, rank=dead[0].rank)
        return failure if any_rank else replace(failure, kind=FailureKind.RANK_CRASHED)

    def _end_hanging(self, hang: Hang) -> None:
        """Save the stacks of all ranks, kill them, and raise GroupHangs."""
        generation, rank = self.generation, hang.ranks[0]
        generation.phase = Phase.ENDED  # from now on `leave` does not wait for a save
        host = generation.host_of(rank) or ""
        self.record(events.HangFound(ranks=hang.ranks, step=hang.step, host=host))
        ended = self._cluster.end_hanging_ranks(generation.members, generation.number)
        self.record(events.GroupEnded(generation=generation.number, ranks=ended))
        raise GroupHangs(rank, hang.ranks, hang.step, hang.waited_s)

    def _refuse_lost_run(self) -> None:
        """Raise RunLost if another launch owns the run. If storage is unavailable, assume that we still own it."""
        with contextlib.suppress(StorageError):
            self._check_owner()
        self._owner_checked_at = self._clock.now()

    def _save(self, state: RunState) -> None:
        """Write the state to storage. Raises RunLost.

        If storage is unavailable the state stays in memory, and `tick` writes it later. This launch decides from the
        copy in memory, so a storage outage does not change its decisions.
        """
        self._state = state
        try:
            self._check_owner()
            write_state(self._storage, state)
            self._state_is_written = True
        except StorageError as error:
            if self._state_is_written:
                logger.warning("the run's state waits in memory: %s", error)
            self._state_is_written = False
