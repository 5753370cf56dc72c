"""FPR95 and accuracies of a set of distances, exactly, in NumPy."""

import numpy as np

from sdnet.errors import InputError

RECALL_PERCENT = 95


def fpr95(distances: np.ndarray, labels: np.ndarray) -> float:
    """Share of the negatives that pass where 95 % of the positives do; 0 is best, 1 is worst.

    The threshold is the smallest distance at or below which at least 95 % of the positives lie.
    A negative passes when it is nearer, or as near: a tie counts as a false positive, so the
    order of the pairs never matters.

    distances: real [N], finite. labels: integers [N], 1 match, 0 non-match, each at least once;
    else InputError.
    """
    distances, labels = checked(distances, labels)
    positives = np.sort(distances[labels == 1])
    negatives = distances[labels == 0]
    needed = -(-RECALL_PERCENT * positives.size // 100)  # whole numbers: no rounding decides
    return int(np.count_nonzero(negatives <= positives[needed - 1])) / negatives.size


def accuracy(distances: np.ndarray, labels: np.ndarray) -> float:
    """Share of pairs called right when the P smallest distances are called matches, P positives given.

    Among pairs tied at the last place the non-matches are called matches first, so the order
    of the pairs never matters and a tie never flatters. Arguments and errors as for `fpr95`.
    """
    distances, labels = checked(distances, labels)
    # Keys from last to first: by distance, and at equal distance negatives before positives.
    called = np.lexsort((labels, distances))[: int(labels.sum())]
    false_positives = int(np.count_nonzero(labels[called] == 0))
    # Each negative called a match leaves one positive out.
    return (labels.size - 2 * false_positives) / labels.size


def best_threshold(distances: np.ndarray, labels: np.ndarray) -> float:
    """The distance at or below which a pair is best called a match: the fewest pairs are called wrong.

    Of several the smallest. Arguments and errors as for `fpr95`. To be taken from training pairs
    and used on others: unlike `accuracy`, that needs no knowledge of how many of those match.
    """
    distances, labels = checked(distances, labels)
    order = np.argsort(distances, kind="stable")
    ascending, gain = distances[order], 2 * labels[order] - 1
    last_of_ties = np.append(np.flatnonzero(np.diff(ascending)), labels.size - 1)
    return float(ascending[last_of_ties[np.argmax(np.cumsum(gain)[last_of_ties])]])


def accuracy_at(threshold: float, distances: np.ndarray, labels: np.ndarray) -> float:
    """Share of pairs called right when those at or below the threshold are called matches."""
    distances, labels = checked(distances, labels)
    return int(np.count_nonzero((distances <= threshold) == (labels == 1))) / labels.size


def check_labels(labels: np.ndarray, source: object = "labels") -> None:
    """Raise InputError, which begins with `source`, unless labels are 0 and 1 and each occurs."""
    strange = np.setdiff1d(labels, (0, 1))
    if strange.size:
        raise InputError(f"{source}: {strange[0]} is no label; they are 1 (match) and 0 (non-match)")
    positives = int(np.count_nonzero(labels))
    if not 0 < positives < labels.size:
        raise InputError(
            f"{source}: of {labels.size} pairs {positives} are matches; FPR95 needs matches and non-matches"
        )


def checked(distances: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays, labels as int64. Raises InputError for what has no rate (see `fpr95`)."""
    distances, labels = np.asarray(distances), np.asarray(labels)
    if distances.ndim != 1 or distances.shape != labels.shape:
        raise InputError(
            f"distances {list(distances.shape)} and labels {list(labels.shape)} do not match; "
            "give one label a distance"
        )
    check_labels(labels)
    if not np.isfinite(distances).all():
        where = int(np.flatnonzero(~np.isfinite(distances))[0])
        raise InputError(f"distance {where} is {distances[where]}; the network's weights are not usable")
    return distances, labels.astype(np.int64)
