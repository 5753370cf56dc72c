"""Finds a patch's partner among the patches of its scene, as registration must.

Unlike random non-matches, which come from other scenes, these rivals look alike: same season,
same land, same sensor pass.
"""

import numpy as np

from sdnet.data.places import Places

_HARD_STREAM = 1  # keeps the draw of hard negatives apart from others of the same seed


def partner_ranks(queries: np.ndarray, candidates: np.ndarray, places: Places) -> np.ndarray:
    """Rank of each query's partner among the candidates of its scene that show other ground: int64 [N].

    queries, candidates: float32 [N, D], row i of one is the partner of row i of the other. Rank 1 is best. A
    rival at the same distance ranks before the partner, so the order of patches does not matter and a tie never
    improves the result.
    """
    queries, candidates = queries.astype(np.float64), candidates.astype(np.float64)
    own = squared_distances(queries, candidates)
    ranks = np.empty(len(queries), np.int64)
    for index, rivals in enumerate(places.rivals()):
        others = squared_distances(queries[index], candidates[rivals])
        ranks[index] = 1 + np.count_nonzero(others <= own[index])
    return ranks


def recall_at_1(ranks: np.ndarray) -> float:
    """Share of queries whose partner comes first, from 0 to 1."""
    return int(np.count_nonzero(ranks == 1)) / ranks.size


def mean_average_precision(ranks: np.ndarray) -> float:
    """Mean of 1 / rank, from above 0 to 1: each query has one right answer."""
    return float(np.sort(1.0 / ranks).sum() / ranks.size)


def draw_hard_negatives(places: Places, seed: int) -> np.ndarray:
    """For each patch one other patch of its scene that shows other ground: int64 [N], -1 if there is none.

    Uniform over those; a patch's draw depends on the seed and on its own rivals alone.
    """
    drawn = np.full(len(places), -1)
    for index, rivals in enumerate(places.rivals()):
        if rivals.size:
            key = [seed, _HARD_STREAM, int(places.tile[index]), *places.centre[index].tolist()]
            drawn[index] = rivals[np.random.Generator(np.random.PCG64(key)).integers(rivals.size)]
    return drawn


def squared_distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances of rows, broadcast: float64 [...].

    Summed element by element, not by matrix products, whose rounding depends on the number of threads.
    """
    difference = one - other
    return np.einsum("...d,...d->...", difference, difference)
