"""Watches a running generation: asks every rank for its heartbeat once a second, and finds hangs and stragglers."""

from orchestrator.engine.control.failures import SchedulerLost
from orchestrator.engine.control.generation import Generation
from orchestrator.engine.control.hang import (
    Hang,
    RankPulse,
    find_hang,
    find_stragglers,
    refuse_early_end,
    step_timeout_s,
)
from orchestrator.engine.control.ports import Clock, Ranks
from orchestrator.engine.messages import Heartbeat

_ASK_EVERY_S = 1.0
_STEPS_REMEMBERED = 32


class Watch:
    """The heartbeats of the ranks of one generation.

    timeout_s: seconds a step may take. None derives it from the measured steps, and never finds a hang in a training
    function that reports no steps.
    """

    def __init__(self, clock: Clock, generation: Generation, ranks: Ranks, timeout_s: float | None):
        self._clock, self._generation, self._ranks = clock, generation, ranks
        self._timeout_s = timeout_s
        self._heard: dict[int, tuple[Heartbeat, float]] = {}
        self._stragglers: set[int] = set()
        self._step_times: list[float] = []
        self._last_step: tuple[int, float] | None = None
        self._next_ask = 0.0

    def due(self) -> bool:
        """Whether a second has passed since the last look."""
        return self._clock.now() >= self._next_ask

    def look(self) -> None:
        """Take the heartbeats that arrived and ask for the next ones. Raises SchedulerLost or EndedEarly."""
        now = self._clock.now()
        self._next_ask = now + _ASK_EVERY_S
        for rank, beat in self._ranks.answers().items():
            self._heard[rank] = (beat, now)
            if not beat.scheduler_alive:
                raise SchedulerLost(rank, self._generation.host_of(rank) or "an unknown host")
        beats = {rank: beat for rank, (beat, _) in self._heard.items()}
        finished = [rank for rank, beat in beats.items() if beat.phase == "finished"]
        refuse_early_end({rank: beat.step for rank, beat in beats.items()}, finished)
        self._learn(now)
        self._ranks.ask()

    @property
    def steps_reported(self) -> bool:
        """Whether the training function has reported a step. Only such a function obeys notices."""
        return any(beat.steps_reported for beat, _ in self._heard.values())

    def hang(self) -> Hang | None:
        """The group's hang, if it hangs."""
        if self._timeout_s is None and not self.steps_reported:
            return None
        timeout_s = step_timeout_s(self._step_times) if self._timeout_s is None else self._timeout_s
        return find_hang(self._pulses(), timeout_s)

    def new_stragglers(self) -> dict[int, float]:
        """Ranks newly found slow, with their work time as a multiple of the median; each rank once a generation."""
        work_s = {rank: beat.work_s for rank, (beat, _) in self._heard.items() if beat.work_s}
        found = {r: factor for r, factor in find_stragglers(work_s).items() if r not in self._stragglers}
        self._stragglers |= set(found)
        return found

    def _learn(self, now: float) -> None:
        """Update the generation's progress and the measured step times."""
        beats = [beat for beat, _ in self._heard.values()]
        step = max((beat.step for beat in beats), default=0)
        self._generation.step = max(self._generation.step, step)
        self._generation.saved = self._heard[0][0].saved if 0 in self._heard else None
        if any(beat.phase != "stepping" for beat in beats):
            self._last_step = None
        elif self._last_step is None:
            self._last_step = (step, now)
        elif step > self._last_step[0]:
            steps = step - self._last_step[0]
            self._step_times = [*self._step_times, (now - self._last_step[1]) / steps][-_STEPS_REMEMBERED:]
            self._last_step = (step, now)

    def _pulses(self) -> dict[int, RankPulse]:
        """Each rank's last heartbeat, aged by the time since it arrived."""
        now, silent_s = self._clock.now(), self._ranks.silent_s()
        return {
            rank: RankPulse(beat.phase, beat.step, beat.since_s + now - at, silent_s.get(rank, 0.0))
            for rank, (beat, at) in self._heard.items()
        }
