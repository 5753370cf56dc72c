"""FPR95 and accuracies of a set of distances, exactly, in NumPy."""

import numpy as np

from sdnet.errors import InputError

RECALL_PERCENT = 95


def fpr95(distances: np.ndarray, labels: np.ndarray) -> float:
    """False positive rate at 95 % recall, from 0 (best) to 1.

    The threshold is the smallest distance that accepts at least 95 % of the positives. A negative at or below
    it is a false positive, also in a tie, so the order of the pairs does not matter.

    distances: real [N], finite.
    labels: integers [N], 1 match, 0 non-match, each at least once.
    Raises InputError otherwise.
    """
    distances, labels = checked(distances, labels)
    positives = np.sort(distances[labels == 1])
    negatives = distances[labels == 0]
    needed = -(-RECALL_PERCENT * positives.size // 100)  # integers: no rounding error
    return int(np.count_nonzero(negatives <= positives[needed - 1])) / negatives.size


def accuracy(distances: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy when the P smallest distances are classified as matches, P being the number of positives.

    Among pairs tied at the last place, non-matches are classified as matches first. So the order of the pairs
    does not matter, and a tie never improves the result. Arguments and errors as for `fpr95`.
    """
    distances, labels = checked(distances, labels)
    # Keys from last to first: by distance, and at equal distance negatives before positives.
    called = np.lexsort((labels, distances))[: int(labels.sum())]
    false_positives = int(np.count_nonzero(labels[called] == 0))
    # Each negative called a match leaves one positive out.
    return (labels.size - 2 * false_positives) / labels.size


def best_threshold(distances: np.ndarray, labels: np.ndarray) -> float:
    """The threshold with the fewest wrong classifications when pairs at or below it are called matches.

    The smallest of several. Arguments and errors as for `fpr95`. Take it from training pairs and use it on
    others: unlike `accuracy`, this needs no knowledge of how many of those match.
    """
    distances, labels = checked(distances, labels)
    order = np.argsort(distances, kind="stable")
    ascending, gain = distances[order], 2 * labels[order] - 1
    last_of_ties = np.append(np.flatnonzero(np.diff(ascending)), labels.size - 1)
    return float(ascending[last_of_ties[np.argmax(np.cumsum(gain)[last_of_ties])]])


def accuracy_at(threshold: float, distances: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy when pairs at or below the threshold are classified as matches."""
    distances, labels = checked(distances, labels)
    return int(np.count_nonzero((distances <= threshold) == (labels == 1))) / labels.size


def check_labels(labels: np.ndarray, source: object = "labels") -> None:
    """Raise InputError unless labels are 0 and 1 and both occur. The message begins with `source`."""
    strange = np.setdiff1d(labels, (0, 1))
    if strange.size:
        raise InputError(f"{source}: {strange[0]} is no label; they are 1 (match) and 0 (non-match)")
    positives = int(np.count_nonzero(labels))
    if not 0 < positives < labels.size:
        raise InputError(
            f"{source}: of {labels.size} pairs {positives} are matches; FPR95 needs matches and non-matches"
        )


def checked(distances: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays, labels as int64. Raises InputError for what `fpr95` does not accept."""
    distances, labels = np.asarray(distances), np.asarray(labels)
    if distances.ndim != 1 or distances.shape != labels.shape:
        raise InputError(
            f"distances {list(distances.shape)} and labels {list(labels.shape)} do not match; "
            "give one label per distance"
        )
    check_labels(labels)
    if not np.isfinite(distances).all():
        where = int(np.flatnonzero(~np.isfinite(distances))[0])
        raise InputError(f"distance {where} is {distances[where]}; the network's weights are not usable")
    return distances, labels.astype(np.int64)
