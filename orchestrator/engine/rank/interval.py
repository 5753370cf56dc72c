"""The checkpoint interval: the first-order optimum of Young and Daly, from the run's own measurements.

Young (1974) and Daly (2006) minimise the time lost to saving plus the work lost to failures:
interval = sqrt(2 * cost * mean time between failures). The cost is measured at each save. The mean time between
failures after n failures in t seconds of training is (assumed + t) / (1 + n): it starts at
ASSUMED_BETWEEN_FAILURES_S and adapts to the run's own failures.
"""

import math

# Large clusters lose a host or a device every few hours. The assumption weighs as much as one observed failure.
ASSUMED_BETWEEN_FAILURES_S = 4 * 3600.0
# A save may stall the loop for at most this share of the time, whatever the failure rate.
MOST_STALL = 0.01
_LONGEST_S = 1800.0


def checkpoint_interval_s(cost_s: float, between_failures_s: float = ASSUMED_BETWEEN_FAILURES_S) -> float:
    """Optimal seconds between saves. cost_s: seconds for which a save stalls the loop.

    At most half an hour, but at least cost_s / MOST_STALL, which wins. A cost of 0 gives 0: save after every step.
    Raises ValueError for a negative cost, or a time between failures that is not above 0.
    """
    if cost_s < 0 or between_failures_s <= 0:
        raise ValueError(
            f"cost {cost_s} s must be 0 or more, time between failures {between_failures_s} s above 0"
        )
    optimum = math.sqrt(2 * cost_s * between_failures_s)
    return max(min(optimum, _LONGEST_S), cost_s / MOST_STALL)


def between_failures_s(failures: int, trained_s: float) -> float:
    """Expected seconds between failures, after `failures` of them in `trained_s` seconds of training.

    Raises ValueError for negative numbers.
    """
    if failures < 0 or trained_s < 0:
        raise ValueError(f"{failures} failures in {trained_s} s: both must be 0 or more")
    return (ASSUMED_BETWEEN_FAILURES_S + trained_s) / (1 + failures)
