"""The uncertainty of FPR95: a bootstrap interval over scenes.

Patches of one scene are similar, so a thousand patches of one scene carry less information than a thousand
scenes. The bootstrap therefore draws whole scenes, with replacement.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from sdnet.evaluation.metrics import RECALL_PERCENT, checked

SAMPLES, COVERED_PERCENT = 1000, 95


def fpr95_interval(
    distances: np.ndarray, labels: np.ndarray, scene: np.ndarray, seed: int = 0
) -> tuple[float, float]:
    """The middle 95 % of the FPR95 values of `SAMPLES` draws of scenes: (low, high).

    scene: integers [N], the scene of each pair; for a non-match, that of its optical patch. Draws without a
    match or a non-match are left out. The order of the pairs does not matter. Errors as for `metrics.fpr95`. A
    single scene gives an interval of width 0.
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
    """`metrics.fpr95` with each pair counted as often as its scene was drawn; None if one kind is missing."""
    kept = np.cumsum(drawn[matches.scene])
    num_others = int(drawn[others.scene].sum())
    if not kept[-1] or not num_others:
        return None
    needed = -(-RECALL_PERCENT * int(kept[-1]) // 100)
    threshold = matches.distances[np.searchsorted(kept, needed)]
    passed = others.scene[: np.searchsorted(others.distances, threshold, "right")]
    return int(drawn[passed].sum()) / num_others
