"""How often to save: Young's and Daly's first-order optimum, from what the run has seen itself.

Young (1974) and Daly (2006) minimise the time lost to saving plus the work lost to failures:
interval = sqrt(2 * cost * mean time between failures). The cost is measured at each save; the
time between failures is the mean that a prior of one failure in ASSUMED_BETWEEN_FAILURES_S has
after n failures in t seconds of training: (assumed + t) / (1 + n).
"""

import math
from collections.abc import Iterable
from typing import Any

# Clusters of this kind lose something every few hours; weighs as much as one failure that was seen.
ASSUMED_BETWEEN_FAILURES_S = 4 * 3600.0
# A save may stall the loop for at most this share of the time, whatever the failure rate.
MOST_STALL = 0.01
_LONGEST_S = 1800.0


def checkpoint_interval_s(cost_s: float, between_failures_s: float = ASSUMED_BETWEEN_FAILURES_S) -> float:
    """Seconds between saves, from the seconds a save stalls the loop and those between failures.

    At least cost_s / MOST_STALL, at most half an hour unless that would stall more. A cost of 0
    gives 0: save whenever you can.
    """
    if cost_s < 0 or between_failures_s <= 0:
        raise ValueError(
            f"cost {cost_s} s must be 0 or more, time between failures {between_failures_s} s above 0"
        )
    optimum = math.sqrt(2 * cost_s * between_failures_s)
    return max(min(optimum, _LONGEST_S), cost_s / MOST_STALL)


def between_failures_s(failures: int, trained_s: float) -> float:
    """Mean seconds between failures, to expect after this many in so many seconds of training.

    The assumed time before anything was seen, and ever closer to trained_s / failures with more.
    """
    if failures < 0 or trained_s < 0:
        raise ValueError(f"{failures} failures in {trained_s} s: both must be 0 or more")
    return (ASSUMED_BETWEEN_FAILURES_S + trained_s) / (1 + failures)


def failures_and_training(history: Iterable[dict[str, Any]]) -> tuple[int, float]:
    """How many failures a run's events tell of, and how many seconds it has trained.

    A generation trains from its first step to its last event: what came while no process of the
    run lived is not counted. Preemptions are announced and lose no work, so they do not count.
    """
    failures, trained_s, last, training = 0, 0.0, 0.0, False
    for event in history:
        if event["event"] in ("run_started", "group_starting"):
            training = False
        if training:
            trained_s += max(event["t"] - last, 0.0)  # clocks of hosts differ a little
        if event["event"] == "first_step":
            training = True
        if event["event"] == "failure_detected" and event["kind"] != "preempted":
            failures += 1
        last = event["t"]
    return failures, trained_s
