"""The uncertainty of FPR95: a bootstrap interval over scenes.

Patches of one scene are similar, so a thousand of them are less evidence than a thousand scenes. So
scenes are drawn, with replacement, each with all of its pairs.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from sdnet.metrics import RECALL_PERCENT, checked

SAMPLES, COVERED_PERCENT = 1000, 95


def fpr95_interval(
    distances: np.ndarray, labels: np.ndarray, scene: np.ndarray, seed: int = 0
) -> tuple[float, float]:
    """The range that holds the middle 95 % of the FPR95 of `SAMPLES` draws of scenes: low and high.

    scene: integers [N], the scene of each pair, a pair of two scenes counting for its optical one.
    Draws without a match or a non-match are left out. The order of the pairs never matters. Errors
    as for `metrics.fpr95`; one scene alone gives an interval of no width.
    """
    distances, labels = checked(distances, labels)
    names, scene = np.unique(scene, return_inverse=True)
    matches, others = (_Ascending.of(distances[labels == label], scene[labels == label]) for label in (1, 0))
    rng = np.random.Generator(np.random.PCG64(seed))
    draws = rng.multinomial(names.size, np.full(names.size, 1 / names.size), SAMPLES)
    rates = [rate for drawn in draws if (rate := _fpr95(matches, others, drawn)) is not None]
    tail = (100 - COVERED_PERCENT) / 2
    low, high = np.percentile(rates, (tail, 100 - tail))
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class _Ascending:
    """Distances in ascending order, and the scene of each."""

    distances: np.ndarray
    scene: np.ndarray

    @classmethod
    def of(cls, distances: np.ndarray, scene: np.ndarray) -> Self:
        order = np.argsort(distances)
        return cls(distances[order], scene[order])


def _fpr95(matches: _Ascending, others: _Ascending, drawn: np.ndarray) -> float | None:
    """`metrics.fpr95` of pairs that count as often as their scene was drawn; None if one kind is missing."""
    kept = np.cumsum(drawn[matches.scene])
    num_others = int(drawn[others.scene].sum())
    if not kept[-1] or not num_others:
        return None
    needed = -(-RECALL_PERCENT * int(kept[-1]) // 100)
    threshold = matches.distances[np.searchsorted(kept, needed)]
    passed = others.scene[: np.searchsorted(others.distances, threshold, "right")]
    return int(drawn[passed].sum()) / num_others
