"""Assesses a network on one test set: rates, their uncertainty, and their differences between scenes.

Pure NumPy on the descriptors of all pairs. The result depends neither on the order of the pairs nor on which
rank computed them.
"""

from typing import Any

import numpy as np

from sdnet.data.places import Places
from sdnet.evaluation.bootstrap import fpr95_interval
from sdnet.evaluation.metrics import accuracy, accuracy_at, fpr95
from sdnet.evaluation.retrieval import (
    draw_hard_negatives,
    mean_average_precision,
    partner_ranks,
    recall_at_1,
    squared_distances,
)


def distances_of(opt: np.ndarray, sar: np.ndarray) -> np.ndarray:
    """Euclidean distance of each pair of descriptors, float64 [N], as from `Evaluation.distances`."""
    difference = opt.astype(np.float64) - sar
    return np.sqrt(np.sum(difference * difference, axis=1))


def assess(
    opt: np.ndarray,
    sar: np.ndarray,
    labels: np.ndarray,
    places: Places | None = None,
    threshold: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The rates of a test set, as plain values for JSON.

    opt, sar: descriptors float32 [N, D], in the order of the file.
    labels: [N].
    places: where the optical patches were cut; None leaves out every rate that needs scenes.
    threshold: the largest distance of a match, from training pairs (`metrics.best_threshold`).
    seed: for the interval and the hard negatives.
    """
    distances = distances_of(opt, sar)
    found: dict[str, object] = {"pairs": len(labels), **_rates(distances, labels)}
    if threshold is not None:
        found["threshold"] = threshold
        found["accuracy_at_threshold"] = accuracy_at(threshold, distances, labels)
    if places is None:
        return found
    found["fpr95_interval"] = fpr95_interval(distances, labels, places.scene, seed)
    matches = np.flatnonzero(labels == 1)
    among = places.rows(matches)
    ranks = np.stack(
        [partner_ranks(opt[matches], sar[matches], among), partner_ranks(sar[matches], opt[matches], among)]
    )
    found |= _retrieval(ranks)
    found["hard_negatives"] = _hard_negatives(opt[matches], sar[matches], among, seed)
    found["scenes"] = {
        name: _row(distances, labels, places.scene == number, ranks[:, among.scene == number])
        for number, name in enumerate(places.scenes)
        if (places.scene == number).any()
    }
    found["seasons"] = {
        season: _row(distances, labels, np.isin(places.scene, scenes), ranks[:, np.isin(among.scene, scenes)])
        for season, scenes in places.by_season().items()
        if np.isin(places.scene, scenes).any()
    }
    return found


def _rates(distances: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return {"fpr95": fpr95(distances, labels), "accuracy": accuracy(distances, labels)}


def _retrieval(ranks: np.ndarray) -> dict[str, float]:
    """ranks: [2, N], optical to SAR and SAR to optical."""
    return {
        "recall_at_1": recall_at_1(ranks),
        "mean_average_precision": mean_average_precision(ranks.ravel()),
    }


def _row(
    distances: np.ndarray, labels: np.ndarray, inside: np.ndarray, ranks: np.ndarray
) -> dict[str, float | int | None]:
    """The rates of a subset of the pairs; None where it lacks matches or non-matches."""
    kept = labels[inside]
    matches = int(np.count_nonzero(kept))
    row: dict[str, float | int | None] = {"matches": matches, "non_matches": len(kept) - matches}
    complete = 0 < matches < len(kept)
    row |= _rates(distances[inside], kept) if complete else dict.fromkeys(("fpr95", "accuracy"))
    return row | (
        _retrieval(ranks) if ranks.size else dict.fromkeys(("recall_at_1", "mean_average_precision"))
    )


def _hard_negatives(opt: np.ndarray, sar: np.ndarray, places: Places, seed: int) -> dict[str, object] | None:
    """Rates with non-matches from the same scene; None if no scene has such a rival."""
    drawn = draw_hard_negatives(places, seed)
    with_rival = np.flatnonzero(drawn >= 0)
    if not with_rival.size:
        return None
    rivals = np.sqrt(squared_distances(opt[with_rival].astype(np.float64), sar[drawn[with_rival]]))
    distances = np.concatenate([distances_of(opt, sar), rivals])
    labels = np.repeat([1, 0], [len(opt), len(rivals)])
    return {"pairs": len(labels), **_rates(distances, labels)}
