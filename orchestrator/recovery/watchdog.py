"""Who hangs and who is slow: decided from what the ranks said of themselves. Pure.

In a data-parallel group every rank waits for the slowest in each step. So when nothing moves,
the rank to blame is the one that has done the fewest steps, or the one that does not even
answer; those that wait for it are only its victims.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Below this a step time-out would blame the machine's ordinary hiccups.
STEP_TIMEOUT_FLOOR_S = 20.0
_STEP_TIMES = 10  # of the median step
# A rank this many times slower than the usual one keeps the others waiting for half their time.
STRAGGLER_FACTOR = 2.0
# What is not a step may take this long: compiling, evaluating, saving.
PHASE_ALLOWANCE_S = {"starting": 300.0, "compiling": 600.0, "evaluating": 1800.0, "saving": 300.0}


@dataclass(frozen=True, slots=True)
class RankPulse:
    """What is known of one rank: its phase, its global steps, and seconds since either changed.

    silent_s: seconds since it last answered at all; a stopped process does not.
    """

    phase: str
    step: int
    since_s: float
    silent_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Hang:
    """A group that stands still: the ranks that are behind, and for how long."""

    ranks: tuple[int, ...]
    step: int
    waited_s: float


def step_timeout_s(step_times_s: Sequence[float]) -> float:
    """How long a step may take: ten times the median of the measured ones, at least the floor."""
    if not step_times_s:
        return PHASE_ALLOWANCE_S["compiling"]
    return max(_STEP_TIMES * statistics.median(step_times_s), STEP_TIMEOUT_FLOOR_S)


def find_hang(pulses: Mapping[int, RankPulse], timeout_s: float) -> Hang | None:
    """The hang, if the group stands still for longer than the phase of its slowest rank allows.

    A silent rank is behind whatever it said last. Otherwise the ranks with the fewest steps
    are; when all are level, all hang.
    """
    silent = {rank: pulse.silent_s for rank, pulse in pulses.items() if pulse.silent_s > timeout_s}
    if silent:
        return Hang(tuple(sorted(silent)), min(pulses[rank].step for rank in silent), max(silent.values()))
    running = {rank: pulse for rank, pulse in pulses.items() if pulse.phase != "finished"}
    if not running:
        return None
    if any(_stands_s(pulse) <= _allowed_s(pulse, timeout_s) for pulse in running.values()):
        return None
    fewest = min(pulse.step for pulse in running.values())
    behind = tuple(sorted(rank for rank, pulse in running.items() if pulse.step == fewest))
    return Hang(behind, fewest, min(_stands_s(running[rank]) for rank in behind))


def find_stragglers(work_s: Mapping[int, float]) -> dict[int, float]:
    """Ranks whose own work takes `STRAGGLER_FACTOR` times the median of all or more: how many times.

    work_s: each rank's seconds of work on a slice, waiting for others not counted.
    """
    if len(work_s) < 2:
        return {}
    usual = statistics.median_low(sorted(work_s.values()))
    times = {rank: seconds / usual for rank, seconds in work_s.items()}
    return {rank: factor for rank, factor in times.items() if factor >= STRAGGLER_FACTOR}


def _stands_s(pulse: RankPulse) -> float:
    return max(pulse.since_s, pulse.silent_s)


def _allowed_s(pulse: RankPulse, timeout_s: float) -> float:
    return max(PHASE_ALLOWANCE_S.get(pulse.phase, timeout_s), timeout_s)
