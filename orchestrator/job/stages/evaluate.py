"""Evaluates a checkpoint on a cluster: each worker computes descriptors of some chunks of pairs; the merge is exact.

Chunks depend only on the batch size. So a pair is always in the same batch, on any worker, and its descriptors are the
same to the last bit.
"""

import functools
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.ascend.environment import thread_variables
from orchestrator.engine.rank.cpus import compute_on
from orchestrator.errors import OrchestratorError
from orchestrator.job.data.copies import host_cache
from orchestrator.job.data.files import followed
from orchestrator.job.spec.job_spec import ClusterSpec
from orchestrator.ray_cluster.session import ray_session
from orchestrator.storage.host_cache import HostCache
from sdnet.data.places import Places
from sdnet.data.store import PatchFile, open_patches, open_training_patches, refuse_corrupt
from sdnet.errors import InputError
from sdnet.evaluation.assessment import assess, distances_of
from sdnet.evaluation.evaluate import Evaluation, chunks_of_rank, merge, training_threshold
from sdnet.evaluation.metrics import check_labels
from sdnet.files import check_place, sha256_of, whole_file
from sdnet.parameters.weights import State
from sdnet.preparation.copies import refuse_equal_halves

_TRIES = 4
# Computes one worker's descriptors from its rank, the number of workers and its threads.
Share = Callable[[int, int, int], tuple[np.ndarray, np.ndarray]]


def evaluate_checkpoint(
    checkpoint: Path,
    data: Path,
    *,
    cluster: ClusterSpec,
    batch: int,
    distances_path: Path | None = None,
    train: Path | None = None,
    adapt: bool = False,
) -> dict[str, Any]:
    """The result of `sdnet.evaluation.assessment.assess` for `data`, and the identity of the weights, as JSON values.

    The result has the same bits for any number of workers. `checkpoint_sha256` and `weights_sha256` are those of
    `LoadedModel`. `note` says what was done to the weights, such as a conversion, or is empty.
    distances_path: file for float64 [N], the distance of each pair in the order of `data`. train: a train.npz, for the
    threshold of a match. adapt: replace the BatchNorm statistics by those of the images, computed without labels.
    Raises InputError for data, a checkpoint or a path that cannot be used, before any worker starts.
    """
    if distances_path is not None:
        check_place(distances_path)
    data = followed(data)
    patches = open_patches(data)
    check_labels(patches.labels, data)
    refuse_corrupt(data)
    refuse_equal_halves(patches)
    cache = host_cache(cluster.cache)
    places = Places.read(data, len(patches))
    evaluation, model = Evaluation.of_checkpoint(checkpoint)  # refuses a bad one before workers start
    statistics = evaluation.statistics_of(patches) if adapt else None
    threshold = _threshold(evaluation, followed(train), cache, batch, adapt) if train is not None else None
    given = Given(checkpoint.resolve(), model.weights_sha256, statistics)
    share = functools.partial(descriptors_of_worker, given, data.resolve(), sha256_of(data), cache, batch)
    with ray_session(cluster):
        shares = _on_workers(share, cluster)
    opt, sar = (merge(list(side), len(patches), batch) for side in zip(*shares, strict=True))
    if distances_path is not None:
        with whole_file(distances_path) as file:
            np.save(file, distances_of(opt, sar), allow_pickle=False)
    found = assess(opt, sar, patches.labels, places, threshold)
    return {**found, **model.origin, "note": model.note, **({"statistics": "images"} if adapt else {})}


def _threshold(evaluation: Evaluation, train: Path, cache: HostCache, batch: int, adapt: bool) -> float:
    places = Places.read(train, len(open_training_patches(train)))
    if places is None:
        raise InputError(f"{train} does not say which scene a patch is of; prepare it again")
    with cache.using(train, sha256_of(train)) as local:
        patches = open_training_patches(local)
        if adapt:
            evaluation = evaluation.with_statistics(evaluation.statistics_of(patches))
        return training_threshold(evaluation, patches, places, batch)


@dataclass(frozen=True, slots=True)
class Given:
    """The network that every worker uses. statistics: instead of those in the checkpoint."""

    checkpoint: Path
    weights_sha256: str
    statistics: State | None


def descriptors_of_worker(
    given: Given,
    data: Path,
    data_sha256: str,
    cache: HostCache,
    batch: int,
    rank: int,
    workers: int,
    threads: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The share of one worker, which computes on `threads` CPUs: descriptors of its chunks' pairs.

    Raises InputError when the checkpoint has other weights on this host.
    """
    compute_on(threads)
    evaluation, model = Evaluation.of_checkpoint(given.checkpoint)
    if model.weights_sha256 != given.weights_sha256:
        raise InputError(
            f"{given.checkpoint} on {socket.gethostname()} has other weights (SHA-256 "
            f"{model.weights_sha256[:12]}... instead of {given.weights_sha256[:12]}...); "
            "give a path that is the same file on every host"
        )
    if given.statistics is not None:
        evaluation = evaluation.with_statistics(given.statistics)
    with cache.using(data, data_sha256) as local:
        patches: PatchFile = open_patches(local)
        return evaluation.descriptors(patches, batch, chunks_of_rank(len(patches), batch, rank, workers))


def _call(share: Share, rank: int, workers: int, threads: int) -> tuple[np.ndarray, np.ndarray]:
    return share(rank, workers, threads)


def _on_workers(descriptors: Share, cluster: ClusterSpec) -> list[tuple[np.ndarray, np.ndarray]]:
    import ray

    # If a worker is lost, another one computes its share again; the result is the same.
    share = ray.remote(
        num_cpus=cluster.threads,
        max_retries=_TRIES - 1,
        runtime_env={"env_vars": thread_variables(cluster.threads)},
    )(_call)
    workers, threads = cluster.max_workers, cluster.threads
    shares = [share.remote(descriptors, rank, workers, threads) for rank in range(workers)]
    try:
        found: list[tuple[np.ndarray, np.ndarray]] = ray.get(shares)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError | OrchestratorError):
            raise error.cause from None  # one line, without the worker's traceback
        raise
    return found
