"""Which ranks hang and which are slow, decided from their heartbeats. Pure.

In a data-parallel group every rank waits for the slowest one in each step. So when the whole group stands still, the
cause is the rank with the fewest steps, or the rank that does not answer at all. The others only wait for it.
"""

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.engine.control.failures import EndedEarly

# With a shorter time-out, a short pause of the machine would look like a hang.
STEP_TIMEOUT_FLOOR_S = 20.0
# The time-out, as a multiple of the median step.
_STEP_TIMES = 10
# At this factor the other ranks spend half of their time waiting.
STRAGGLER_FACTOR = 2.0
# How long phases other than steps may take.
PHASE_ALLOWANCE_S = {"starting": 300.0, "compiling": 600.0, "evaluating": 1800.0, "saving": 300.0}


@dataclass(frozen=True, slots=True)
class RankPulse:
    """The last known state of one rank: its phase, its global steps, and seconds since either changed.

    silent_s: seconds since it was asked for a heartbeat that it has not answered yet; a stopped process never answers.
    """

    phase: str
    step: int
    since_s: float
    silent_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Hang:
    """A group without progress: the ranks that are behind, and for how long."""

    ranks: tuple[int, ...]
    step: int
    waited_s: float


def step_timeout_s(step_times_s: Sequence[float]) -> float:
    """How long a step may take: ten times the median of the measured ones, at least the floor.

    Without a measurement it is the allowance of `compiling`.
    """
    if not step_times_s:
        return PHASE_ALLOWANCE_S["compiling"]
    return max(_STEP_TIMES * statistics.median(step_times_s), STEP_TIMEOUT_FLOOR_S)


def longest_wait_s(step_timeout_s: float | None) -> float:
    """The longest time that the watchdog lets ranks wait for a late one; a collective must wait as long.

    step_timeout_s: as stated, or None if it is derived from the steps, which are not measured yet.
    """
    return max(*PHASE_ALLOWANCE_S.values(), step_timeout_s or 0.0)


def find_hang(pulses: Mapping[int, RankPulse], timeout_s: float) -> Hang | None:
    """The hang, if no rank has made progress for longer than its phase allows; None otherwise.

    A rank that is silent for longer than `timeout_s` hangs, whatever it reported last. Without silent ranks, those
    with the fewest steps hang; if all have the same number of steps, all are reported.
    """
    silent = {rank: pulse.silent_s for rank, pulse in pulses.items() if pulse.silent_s > timeout_s}
    if silent:
        return Hang(tuple(sorted(silent)), min(pulses[rank].step for rank in silent), max(silent.values()))
    running = {rank: pulse for rank, pulse in pulses.items() if pulse.phase != "finished"}
    if not running:
        return None
    if any(_idle_s(pulse) <= _allowed_s(pulse, timeout_s) for pulse in running.values()):
        return None
    fewest = min(pulse.step for pulse in running.values())
    behind = tuple(sorted(rank for rank, pulse in running.items() if pulse.step == fewest))
    return Hang(behind, fewest, min(_idle_s(running[rank]) for rank in behind))


def refuse_early_end(steps: Mapping[int, int], finished: Collection[int]) -> None:
    """Raise EndedEarly if a rank finished before a step that another rank has reported. steps: of each rank."""
    group_step = max(steps.values(), default=0)
    early = tuple(rank for rank in sorted(finished) if steps[rank] < group_step)
    if early:
        raise EndedEarly(early, min(steps[rank] for rank in early), group_step)


def find_stragglers(work_s: Mapping[int, float]) -> dict[int, float]:
    """Ranks whose own work takes at least `STRAGGLER_FACTOR` times the median, with that factor.

    work_s: seconds of each rank's own work on a step, without waiting for other ranks.
    """
    if len(work_s) < 2:
        return {}
    median_s = statistics.median_low(sorted(work_s.values()))
    times = {rank: seconds / median_s for rank, seconds in work_s.items()}
    return {rank: factor for rank, factor in times.items() if factor >= STRAGGLER_FACTOR}


def _idle_s(pulse: RankPulse) -> float:
    return max(pulse.since_s, pulse.silent_s)


def _allowed_s(pulse: RankPulse, timeout_s: float) -> float:
    return max(PHASE_ALLOWANCE_S.get(pulse.phase, timeout_s), timeout_s)
