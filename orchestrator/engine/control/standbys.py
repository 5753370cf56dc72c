"""When to start standbys: spare workers that have everything imported and wait for the next generation.

Without them, each restart has to import Ray, MindSpore and the training function, which takes seconds. While standbys
import, they compete with the ranks for CPUs, so they start only when the group makes progress.
"""

from typing import Protocol

from orchestrator.engine.control.generation import Generation
from orchestrator.engine.control.ports import Clock
from orchestrator.telemetry.events import StandbysReady

# In its first seconds a group compiles, which needs the CPUs.
_SETTLED_S = 5.0


class StandbyPool(Protocol):
    """Standby workers on every host; they live as long as the controller."""

    def start_missing(self) -> None:
        """Start as many on every host as the fullest host has ranks. Does not wait."""

    def newly_ready(self) -> int:
        """The number of standbys of the last start, once, when all of them are ready; otherwise 0."""


class Standbys:
    """Starts the standbys of one generation."""

    def __init__(self, clock: Clock, generation: Generation, pool: StandbyPool):
        self._clock, self._generation, self._pool = clock, generation, pool
        self._first_step = generation.step
        self._progress_since: float | None = None
        self._started = self._reported = False

    def look(self) -> StandbysReady | None:
        """Start standbys when the group has made progress for a while. Returns an event when all are ready."""
        now = self._clock.now()
        if self._generation.step > self._first_step and self._progress_since is None:
            self._progress_since = now
        settled = self._progress_since is not None and now >= self._progress_since + _SETTLED_S
        if settled and not self._started:
            self._pool.start_missing()
            self._started = True
        if self._started and not self._reported and (ready := self._pool.newly_ready()):
            self._reported = True
            return StandbysReady(started=ready)
        return None
