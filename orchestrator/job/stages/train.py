"""The train stage: SDNet's training function on the engine, until the recipe is done."""

import functools
import logging
import time
from collections.abc import Callable

import ray
from ray.train import RunConfig
from ray.train.v2.api.config import ScalingConfig

from orchestrator.engine.arguments import RecoveryConfig
from orchestrator.engine.config import MindSporeConfig
from orchestrator.engine.trainer import MindSporeTrainer
from orchestrator.errors import OrchestratorError
from orchestrator.job.checkpoints import Newest, newest_checkpoint
from orchestrator.job.data.copies import copies_of, data_errors, host_cache
from orchestrator.job.data.files import data_files
from orchestrator.job.data.inputs import Supply, batch_problem
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import ClusterSpec, JobSpec
from orchestrator.job.workload import SdnetFormat, SdnetJob, train_sdnet
from orchestrator.storage import Lease
from orchestrator.storage.retry import LISTED_WITHIN_S, outlasting
from orchestrator.telemetry.event import Event
from orchestrator.telemetry.events import StageFinished, StageStarted
from sdnet.data.augment import check_patches
from sdnet.data.checksums import checksums_of, sample_checksum
from sdnet.data.sampler import steps_per_epoch
from sdnet.data.store import open_patches
from sdnet.errors import InputError

logger = logging.getLogger(__name__)

_DATA = "the run's data"
Record = Callable[[Event], None]


class LastCheckpointMissing(OrchestratorError):
    """The group trained to the end, but its last checkpoint is missing. Example: somebody emptied the folder."""

    def __str__(self) -> str:
        return f"training ended, but its last checkpoint is missing in {self.args[0]}; launch again to resume"


def train(spec: JobSpec, run: RunDirectory, record: Record, lease: Lease) -> Newest:
    """Train to the end of the recipe, through the failures that `recovery` allows; returns the last checkpoint.

    Needs a connected Ray. Raises InputError when the data cannot fill a batch, TrainingGaveUp when there were too many
    failures, or one that would happen again, and LastCheckpointMissing.
    """
    check_data(spec, run)
    done = finished(spec, run, record)
    if done is not None:
        return done
    _warn_of_idle_cpus(spec.cluster)
    record(StageStarted(stage="train"))
    began = time.monotonic()
    trainer_of(spec, run).fit(lease)
    done = _last(spec, run, record)
    record(StageFinished(stage="train", seconds=round(time.monotonic() - began, 3)))
    return done


def _last(spec: JobSpec, run: RunDirectory, record: Record) -> Newest:
    """The last checkpoint of a group that succeeded. It exists, but this host's mount may show it late.

    Raises LastCheckpointMissing if the mount does not show it within `LISTED_WITHIN_S`.
    """
    look = functools.partial(finished, spec, run, record)
    deadline = time.monotonic() + LISTED_WITHIN_S
    while True:
        try:
            done = outlasting(run.storage, look, spec.recovery.storage_timeout_s)
        except InputError:  # to this mount, all checkpoints seem to be lost
            if time.monotonic() > deadline:
                raise
            done = None
        if done is not None:
            return done
        if time.monotonic() > deadline:
            raise LastCheckpointMissing(str(run.checkpoints))
        time.sleep(1.0)


@data_errors(_DATA)
def check_data(spec: JobSpec, run: RunDirectory) -> None:
    """Refuse data that the recipe cannot use: too few samples for a global batch, too small patches."""
    train, test = data_files(run)
    patches = open_patches(train)
    check_patches(spec.train, patches)
    supply = Supply(str(train), pairs=0, train=len(patches), test=len(open_patches(test)))
    problem = batch_problem(spec, supply) or copies_of(train, test).problem(spec.cluster.cache)
    if problem:
        raise InputError(problem)


@data_errors(_DATA)
def finished(spec: JobSpec, run: RunDirectory, record: Record) -> Newest | None:
    """The newest valid checkpoint, if it is at the end of the recipe.

    Raises InputError when all are lost, and for a checkpoint that this recipe cannot have made.
    """
    newest = newest_checkpoint(run, record)
    if newest is None:
        return None
    total = steps_per_epoch(len(open_patches(data_files(run)[0])), spec.global_batch) * spec.train.epochs
    if newest.step > total:
        raise InputError(
            f"{run.checkpoints / newest.name} is at step {newest.step}, but the recipe ends at step {total}; "
            "move it out of the run, or launch with --restart"
        )
    return newest if newest.step == total else None


def trainer_of(spec: JobSpec, run: RunDirectory) -> MindSporeTrainer:
    """SDNet's training function and the job's settings, as the engine takes them."""
    cluster, recovery = spec.cluster, spec.recovery
    resource, each = cluster.rank_resource
    job = _job(spec, run)
    return MindSporeTrainer(
        functools.partial(train_sdnet, job),
        mindspore_config=mindspore_config(cluster),
        scaling_config=ScalingConfig(
            num_workers=(cluster.min_workers, cluster.max_workers)
            if cluster.elastic
            else cluster.max_workers,
            resources_per_worker={"CPU": 1.0, resource: float(each)},
        ),
        run_config=RunConfig(name=run.root.name, storage_path=str(run.root.parent)),
        recovery=RecoveryConfig(
            max_failures=recovery.max_failures,
            standbys=recovery.standbys,
            step_timeout_s=_seconds(recovery.step_timeout_s),
            storage_timeout_s=recovery.storage_timeout_s,
            checkpoint_every_s=_seconds(spec.checkpoint.every_s),
            keep=spec.checkpoint.keep,
            best="fpr95",
            workers_per_host=cluster.workers_per_host,
            compile_cache=True,
            compile_key=job.compile_key(),
        ),
        state_format=SdnetFormat(),
        host_cache=job.cache,
    )


def mindspore_config(cluster: ClusterSpec) -> MindSporeConfig:
    """The job's cluster as the engine's configuration of MindSpore."""
    return MindSporeConfig(
        device=cluster.device,
        threads=cluster.threads,
        soc=cluster.soc,
        rendezvous=cluster.rendezvous,
        hosts={host.address: host.devices for host in cluster.hosts},
        collective=cluster.collective,
    )


@data_errors(_DATA)
def _job(spec: JobSpec, run: RunDirectory) -> SdnetJob:
    train, test = data_files(run)
    return SdnetJob(
        recipe=spec.train,
        train=train,
        test=test,
        cache=host_cache(spec.cluster.cache),
        data=checksums_of(train, test),
        data_sample=sample_checksum(open_patches(train), open_patches(test)),
        slices=spec.cluster.max_workers,
        evaluate_every=spec.evaluate.every_epochs,
        evaluate_batch=spec.evaluate.batch,
    )


def _warn_of_idle_cpus(cluster: ClusterSpec) -> None:
    """Warn when this host has CPUs for more `threads`: that number is never derived from the host."""
    cpus, ranks = int(ray.cluster_resources().get("CPU", 0)), cluster.max_workers
    if cluster.address == "local" and cluster.device == "cpu" and cpus // ranks > cluster.threads:
        used, could = ranks * cluster.threads, cpus // ranks
        message = "%s rank(s) compute on %s of %s CPUs; --set cluster.threads=%s would use them"
        logger.warning(message, ranks, used, cpus, could)


def _seconds(value: float | str) -> float | None:
    """A number of seconds, or None for `auto`."""
    return None if isinstance(value, str) else float(value)
