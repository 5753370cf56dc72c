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
# How often to look for hosts without standbys: one that was lost may return, and a new one may join.
_LOOK_AGAIN_S = 10.0


class StandbyPool(Protocol):
    """Standby workers on every host; they live as long as the controller."""

    def start_missing(self) -> None:
        """Start as many on every host as the fullest host has ranks. Does not wait."""

    def newly_ready(self) -> int:
        """The number of standbys that were started, once, when all of them are ready; otherwise 0."""


class Standbys:
    """Starts the standbys of one generation."""

    def __init__(self, clock: Clock, generation: Generation, pool: StandbyPool):
        self._clock, self._generation, self._pool = clock, generation, pool
        self._first_step = generation.step
        self._next_start: float | None = None

    def look(self) -> StandbysReady | None:
        """Start missing standbys when the group has made progress for a while. Returns an event when all are ready."""
        now = self._clock.now()
        if self._next_start is None and self._generation.step > self._first_step:
            self._next_start = now + _SETTLED_S
        if self._next_start is not None and now >= self._next_start:
            self._pool.start_missing()
            self._next_start = now + _LOOK_AGAIN_S
        ready = self._pool.newly_ready()
        return StandbysReady(started=ready) if ready else None
