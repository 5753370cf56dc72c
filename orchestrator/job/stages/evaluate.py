"""Evaluating a checkpoint on a cluster: every worker embeds some chunks of the pairs, the merge is exact.

Chunks are fixed by the batch alone, so a pair goes through the network in the same company
whichever worker computes it, and its descriptors are the same to the last bit.
"""

import socket
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.ascend.environment import thread_variables
from orchestrator.engine.rank.cpus import compute_on
from orchestrator.job.spec.job_spec import ClusterSpec
from orchestrator.ray_cluster.session import ray_session
from sdnet.assessment import assess, distances_of
from sdnet.data.places import Places
from sdnet.data.store import PatchFile, open_patches, open_training_patches, refuse_corrupt
from sdnet.errors import InputError
from sdnet.evaluation import Evaluation, chunks_of_rank, merge, training_threshold
from sdnet.files import check_place, whole_file
from sdnet.metrics import check_labels

_TRIES = 4


def evaluate_checkpoint(
    checkpoint: Path,
    data: Path,
    *,
    cluster: ClusterSpec,
    batch: int,
    distances_path: Path | None = None,
    train: Path | None = None,
) -> dict[str, Any]:
    """What `sdnet.assessment.assess` finds in `data`, and which weights it belongs to, as JSON values.

    The same bits for any number of workers. `checkpoint_sha256` and `weights_sha256` are those of
    `LoadedModel`; `note` says what was done to the weights, such as a conversion, or is empty.
    distances_path: gets float64 [N], a distance a pair in the order of the file. train: a train.npz, for
    the threshold of a match. Raises InputError for data, a checkpoint or a path that cannot be used,
    before any worker starts.
    """
    if distances_path is not None:
        check_place(distances_path)
    patches = open_patches(data)
    check_labels(patches.labels, data)
    refuse_corrupt(data)
    places = Places.read(data, len(patches))
    evaluation, model = Evaluation.of_checkpoint(checkpoint)  # a bad one is refused here, not by every worker
    threshold = _threshold(evaluation, train, batch) if train is not None else None
    with ray_session(cluster):
        shares = _on_workers(checkpoint.resolve(), model.weights_sha256, data.resolve(), cluster, batch)
    opt, sar = (merge(list(side), len(patches), batch) for side in zip(*shares, strict=True))
    if distances_path is not None:
        with whole_file(distances_path) as file:
            np.save(file, distances_of(opt, sar), allow_pickle=False)
    found = assess(opt, sar, patches.labels, places, threshold)
    return {**found, **model.origin, "note": model.note}


def _threshold(evaluation: Evaluation, train: Path, batch: int) -> float:
    patches = open_training_patches(train)
    places = Places.read(train, len(patches))
    if places is None:
        raise InputError(f"{train} does not say which scene a patch is of; prepare it again")
    return training_threshold(evaluation, patches, places, batch)


def descriptors_of_worker(
    checkpoint: Path, weights_sha256: str, data: Path, batch: int, rank: int, workers: int, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """The share of one worker, which computes on `threads` CPUs: descriptors of its chunks' pairs.

    Raises InputError when the checkpoint holds other weights on this host.
    """
    compute_on(threads)
    patches: PatchFile = open_patches(data)
    evaluation, model = Evaluation.of_checkpoint(checkpoint)
    if model.weights_sha256 != weights_sha256:
        raise InputError(
            f"{checkpoint} on {socket.gethostname()} holds other weights (SHA-256 "
            f"{model.weights_sha256[:12]}... instead of {weights_sha256[:12]}...); "
            "give a path that is the same file on every host"
        )
    return evaluation.descriptors(patches, batch, chunks_of_rank(len(patches), batch, rank, workers))


def _on_workers(
    checkpoint: Path, weights_sha256: str, data: Path, cluster: ClusterSpec, batch: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    import ray

    # A lost worker's share is computed again by another; the result cannot tell.
    share = ray.remote(
        num_cpus=cluster.threads,
        max_retries=_TRIES,
        runtime_env={"env_vars": thread_variables(cluster.threads)},
    )(descriptors_of_worker)
    workers, threads = cluster.max_workers, cluster.threads
    shares = [
        share.remote(checkpoint, weights_sha256, data, batch, rank, workers, threads)
        for rank in range(workers)
    ]
    try:
        found: list[tuple[np.ndarray, np.ndarray]] = ray.get(shares)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise error.cause from None  # one line, without the worker's traceback
        raise
    return found
