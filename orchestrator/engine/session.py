"""The interface of a training function: call `get_session()`, then `restore` once and `step` after every step."""

import contextlib
import math
import reprlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from numbers import Integral
from typing import Literal, get_args

from orchestrator.engine.control.failures import TrainingDiverged
from orchestrator.engine.messages import Notice, NoticeKind
from orchestrator.engine.rank.compile_cache import CompileCache
from orchestrator.engine.rank.leave import Leaving
from orchestrator.engine.rank.link import RankLink
from orchestrator.engine.rank.restore import Restored
from orchestrator.engine.rank.saver import Saver
from orchestrator.engine.state_format import State
from orchestrator.errors import InputError
from orchestrator.telemetry.event import Event
from orchestrator.telemetry.events import Compiled, FirstStep, Progress, Resumed

_PROGRESS_EVERY_S = 5.0
# What a training function may mark as longer than a step; `control/hang.py` has the seconds of each.
LongPhase = Literal["evaluating", "saving", "compiling"]


def numbers_of(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics as Python numbers: a scalar of NumPy or a tensor of one element becomes a float. Raises InputError."""
    if not isinstance(metrics, Mapping):
        raise InputError(f"metrics is a {type(metrics).__name__}; give a dictionary such as {{'loss': 0.5}}")
    numbers: dict[str, float] = {}
    for name, value in metrics.items():
        if not isinstance(name, str):
            raise InputError(f"metrics has the key {name!r}; use text")
        try:
            if isinstance(value, str | bytes):
                raise TypeError(value)
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise InputError(
                f"metric {name!r} is {reprlib.repr(value)}; give one number, such as float(loss.asnumpy())"
            ) from None
        numbers[name] = value if type(value) is int else number
    return numbers


class HostIsDrained(Exception):
    """All ranks saved and exit; the group restarts on other hosts. A training function must not catch it."""

    def __init__(self, rank: int, step: int):
        super().__init__(rank, step)
        self.rank, self.step = rank, step

    def __str__(self) -> str:
        return f"the host of rank {self.rank} is being drained; saved at step {self.step}"


class LaunchEnds(Exception):
    """All ranks saved and exit, because the launcher must stop. A training function must not catch it."""

    def __init__(self, step: int):
        super().__init__(step)
        self.step = step

    def __str__(self) -> str:
        return f"the launch ends; saved at step {self.step}"


class Session:
    """What the training function uses in one rank of one generation.

    rank: 0 to `world_size` - 1. local_rank: number among the ranks of this host, from 0. total_steps: set it if it
    is known, so that progress can be shown.
    """

    def __init__(
        self,
        *,
        rank: int,
        world_size: int,
        local_rank: int,
        link: RankLink,
        restored: Restored | None,
        saver: Saver | None,
        leaving: Leaving,
        barrier: Callable[[], None],
        record: Callable[[Event], None],
        cache: CompileCache | None,
        cached: bool,
    ):
        self.rank, self.world_size, self.local_rank = rank, world_size, local_rank
        self.total_steps: int | None = None
        self._link, self._saver, self._leaving, self._barrier = link, saver, leaving, barrier
        self._record, self._cache, self._cached = record, cache, cached
        self._restored = restored
        self._asked = False  # whether `restore` was called
        self._began = time.monotonic()
        self._first = True
        self._progress_at = 0.0
        self._unsaved: tuple[int, Callable[[], State], Mapping[str, float]] | None = None
        self.last_step = 0
        self.last_metrics: Mapping[str, float] = {}

    def restore(self, load: Callable[[State], None]) -> int:
        """Load the newest valid checkpoint and return the number of global steps done; 0 if there is none.

        All ranks load the same checkpoint. `load` receives the dictionary that was passed to `step`, with new arrays.
        Raises InputError at a second call, and for a `load` that is no function: without a checkpoint nothing would
        call it.
        """
        if self._asked:
            raise InputError("session.restore was called twice; call it once, before the loop")
        if not callable(load):
            raise InputError(
                f"session.restore got a {type(load).__name__}; pass the function that loads a state, such as "
                "train_step.load"
            )
        self._asked = True
        if self._restored is None:
            self._link.beat("compiling", 0)
            return 0
        load(self._restored.state)
        self.last_step = self._restored.step
        self.last_metrics = self._restored.metrics
        self._record(Resumed(checkpoint=self._restored.name, step=self._restored.step))
        self._link.beat("compiling", self._restored.step)
        self._restored = None  # free the memory: its arrays are as large as the model
        return self.last_step

    def step(
        self,
        step: int,
        *,
        state: Callable[[], State],
        metrics: Mapping[str, float] | None = None,
        save: bool = False,
        work_s: float | None = None,
    ) -> None:
        """Report that `step` global steps are done: heartbeat, metrics, and the point where ranks save or exit.

        Every rank must call it after every step, with the same `step`: the ranks agree here on when to exit, and a
        rank that does not call it makes the others wait.

        Args:
            state: returns the complete state after this step: NumPy arrays and JSON values by name, equal on all
                ranks. Called only on rank 0, and only when it is saved: in this call, or after the training
                function has returned. Arrays must be copies.
            metrics: numbers to show, such as a loss; stored with the next checkpoint, as null if not finite.
            save: save now, even if the interval has not passed.
            work_s: seconds of this rank's own work, without waiting for other ranks; shows which rank is slow.

        Raises:
            TrainingDiverged: a metric named `loss` is not finite.
            InputError: an argument has the wrong type, `step` is lower than in an earlier call, or `restore` was not
                called before.
        """
        self._check(step, state)
        self.last_step = step = int(step)
        metrics = self._checked(metrics)
        if self._first:
            self._first_step(step)
        self._link.beat("stepping", step, work_s)
        self._unsaved = (step, state, metrics)
        self._report_progress(step)
        notice = self._leaving.agreed(step)
        if save or notice is not None or (self._saver is not None and self._saver.due(step)):
            self._save()
        if notice is not None:
            self._leave(notice, step)

    @contextlib.contextmanager
    def phase(self, name: LongPhase) -> Iterator[None]:
        """Mark work that may take longer than a step, so that it does not count as a hang.

        Raises InputError for another name: it would allow no more time than a step.
        """
        if name not in get_args(LongPhase):
            known = ", ".join(get_args(LongPhase))
            raise InputError(f"session.phase({reprlib.repr(name)}) is unknown; use one of {known}")
        self._link.beat(name, self.last_step)
        yield
        if self._cache is not None:
            self._cache.seal()  # new graphs may have been compiled
        self._link.beat("stepping", self.last_step)

    def busy(self) -> None:
        """Report that this rank makes progress before its first step. Example: it copies data to its host's disk."""
        self._link.beat("starting", self.last_step)

    def record(self, event: Event) -> None:
        """Record an event of the job. Only rank 0 records; other ranks ignore the call."""
        self._record(event)

    def finish(self) -> None:
        """Save the last state if needed, and wait until it is written. Only the engine calls it."""
        if self._unsaved is not None:
            self._save()
        if self._saver is not None:
            self._saver.flush()
        self._link.beat("finished", self.last_step)

    def close(self) -> None:
        """Stop the saver's thread. Only the engine calls it."""
        if self._saver is not None:
            self._saver.close()

    def _check(self, step: int, state: Callable[[], State]) -> None:
        if not self._asked:
            raise InputError(
                f"session.step({reprlib.repr(step)}) was called before session.restore(load); call restore once, "
                "before the loop"
            )
        if isinstance(step, bool) or not isinstance(step, Integral):
            raise InputError(
                f"session.step({reprlib.repr(step)}) is not a whole number; count global steps from 1"
            )
        if step < self.last_step:
            raise InputError(
                f"session.step({step}) comes after step {self.last_step}; count global steps upwards"
            )
        if not callable(state):
            raise InputError(
                f"session.step got a {type(state).__name__} as state; pass the function that returns it, such as "
                "state=train_step.state"
            )

    def _checked(self, metrics: Mapping[str, float] | None) -> Mapping[str, float]:
        if metrics is not None:
            self.last_metrics = numbers_of(metrics)
            if not math.isfinite(self.last_metrics.get("loss", 0.0)):
                raise TrainingDiverged(self.last_step)
        return self.last_metrics

    def _first_step(self, step: int) -> None:
        """Seal the compile cache and record the duration: the first step has compiled all graphs of a step."""
        self._first = False
        if self._cache is not None:
            self._cache.seal()
        self._record(Compiled(seconds=round(time.monotonic() - self._began, 3), cached=self._cached))
        self._record(FirstStep(step=step))

    def _report_progress(self, step: int) -> None:
        now = time.monotonic()
        if now - self._progress_at > _PROGRESS_EVERY_S:
            self._progress_at = now
            self._record(Progress(step=step, steps=self.total_steps))

    def _save(self) -> None:
        if self._unsaved is None:
            return
        step, state, metrics = self._unsaved
        self._unsaved = None
        if self._saver is not None:
            self._link.beat("saving", step)
            self._saver.save(step, state, metrics)
            self._link.beat("stepping", step)

    def _leave(self, notice: Notice, step: int) -> None:
        """End this rank after the save is on disk.

        Only rank 0 saves. The barrier makes all other ranks wait: the first rank that exits ends the group, and rank
        0 would be killed in the middle of its save.
        """
        if self._saver is not None:
            self._saver.flush()
        self._barrier()
        if notice.kind is NoticeKind.STOP:
            raise LaunchEnds(step)
        raise HostIsDrained(notice.ranks[0], step)


_session: ContextVar[Session] = ContextVar("session")


def get_session() -> Session:
    """The session of this rank. Raises InputError outside of a training function's own thread."""
    try:
        return _session.get()
    except LookupError:
        raise InputError(
            "get_session() was called outside of a training function; call it in the function that "
            "MindSporeTrainer runs, in its own thread"
        ) from None


def set_session(session: Session) -> None:
    """Set the session of this thread. Only the engine calls it, before the training function."""
    _session.set(session)
