"""Evaluating a checkpoint on a cluster: every worker embeds some chunks of the pairs, the merge is exact.

Chunks are fixed by the batch alone, so a pair goes through the network in the same company
whichever worker computes it, and its distance is the same to the last bit.
"""

from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.ascend.environment import thread_variables
from orchestrator.ray_session import ray_session
from orchestrator.spec import ClusterSpec
from orchestrator.training.cpus import compute_on
from sdnet.data.store import PatchFile, open_patches
from sdnet.evaluation import Evaluation, chunks_of_rank, merge
from sdnet.files import check_place, whole_file
from sdnet.metrics import accuracy, check_labels, fpr95

_TRIES = 4


def evaluate_checkpoint(
    checkpoint: Path, data: Path, *, cluster: ClusterSpec, batch: int, distances_path: Path | None = None
) -> dict[str, Any]:
    """FPR95, accuracy and number of pairs of `data`; the same bits for any number of workers.

    distances_path: gets float64 [N], a distance a pair in the order of the file.
    Raises InputError for data, a checkpoint or a path that cannot be used, before any worker starts.
    """
    if distances_path is not None:
        check_place(distances_path)
    patches = open_patches(data)
    check_labels(patches.labels, data)
    Evaluation.of_checkpoint(checkpoint)  # refuse a bad one here, once, not in every worker
    with ray_session(cluster):
        shares = _on_workers(checkpoint.resolve(), data.resolve(), cluster, batch)
    distances = merge(shares, len(patches), batch)
    if distances_path is not None:
        with whole_file(distances_path) as file:
            np.save(file, distances, allow_pickle=False)
    labels = patches.labels
    return {"fpr95": fpr95(distances, labels), "accuracy": accuracy(distances, labels), "pairs": len(patches)}


def distances_of_worker(
    checkpoint: Path, data: Path, batch: int, rank: int, workers: int, threads: int
) -> np.ndarray:
    """The share of one worker, which computes on `threads` CPUs: float64 distances of its chunks' pairs."""
    compute_on(threads)
    patches: PatchFile = open_patches(data)
    evaluation = Evaluation.of_checkpoint(checkpoint)
    return evaluation.distances(patches, batch, chunks_of_rank(len(patches), batch, rank, workers))


def _on_workers(checkpoint: Path, data: Path, cluster: ClusterSpec, batch: int) -> list[np.ndarray]:
    import ray

    # A lost worker's share is computed again by another; the result cannot tell.
    share = ray.remote(
        num_cpus=cluster.threads,
        max_retries=_TRIES,
        runtime_env={"env_vars": thread_variables(cluster.threads)},
    )(distances_of_worker)
    workers = cluster.max_workers
    found: list[np.ndarray] = ray.get(
        [share.remote(checkpoint, data, batch, rank, workers, cluster.threads) for rank in range(workers)]
    )
    return found
