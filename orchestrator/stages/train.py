"""The train stage: one generation of the group after another until the recipe is done."""

import functools
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.train import CheckpointConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import TrainingFailedError

from orchestrator.ascend.environment import thread_variables
from orchestrator.ascend.fence import RUN_VARIABLE
from orchestrator.errors import OrchestratorError
from orchestrator.events import EventLog
from orchestrator.inputs import Supply, batch_problem
from orchestrator.recovery.failures import classify
from orchestrator.run_directory import RunDirectory
from orchestrator.spec import ClusterSpec, JobSpec
from orchestrator.training.backend import MindSporeConfig
from orchestrator.training.checkpoints import checkpoint_to_resume, remove_leftovers
from orchestrator.training.drain import DrainWatch
from orchestrator.training.failure_policy import GroupFailurePolicy
from orchestrator.training.fencing import Fence
from orchestrator.training.free_hosts import FreeHosts
from orchestrator.training.group import GroupWatch
from orchestrator.training.growth import GrowsAtCheckpoints
from orchestrator.training.rank_order import RankOrder
from orchestrator.training.saver import CheckpointNotSaved
from orchestrator.training.standby import Standbys
from orchestrator.training.trainer import GroupTrainer
from orchestrator.training.worker import TrainJob, train_rank
from sdnet.augment import check_patches
from sdnet.checkpoint import CheckpointState, read_state
from sdnet.data.sampler import steps_per_epoch
from sdnet.data.store import checksums_of, open_patches, sample_checksum
from sdnet.errors import InputError
from sdnet.files import remove

logger = logging.getLogger(__name__)

# NumPy's linear algebra draws the start. Left to itself it takes the newest kernels of each host's CPU, and
# 29 of SDNet's weights differ in their last bit between AVX2 and AVX-512. Other architectures ignore it.
_SAME_START = {"OPENBLAS_CORETYPE": "Haswell"}


class TrainingGaveUp(OrchestratorError):
    """The group failed too often, or in a way that comes again. Example: the loss became NaN."""

    def __init__(self, cause: str, reason: str):
        super().__init__(cause, reason)
        self.cause, self.reason = cause, reason

    def __str__(self) -> str:
        return f"training stopped: {self.cause} ({self.reason}); see logs/ and events.jsonl of the run"


@dataclass(frozen=True, slots=True)
class Trained:
    """What the stage leaves behind: the last checkpoint and its state."""

    checkpoint: Path
    state: CheckpointState


def finished(spec: JobSpec, run: RunDirectory, events: EventLog) -> Trained | None:
    """The end of the recipe, if a good checkpoint of this run has reached it; bad ones are set aside.

    Raises CheckpointsLost, and InputError for a checkpoint that this recipe cannot have made.
    """
    checkpoint = checkpoint_to_resume(run, events)
    if checkpoint is None:
        return None
    state = read_state(checkpoint)
    samples = len(open_patches(run.train_npz))
    total = steps_per_epoch(samples, spec.global_batch) * spec.train.epochs
    if state.step > total:
        raise InputError(
            f"{checkpoint} is at step {state.step}, but the recipe ends at step {total}; "
            "move it out of the run, or launch with --restart"
        )
    return Trained(checkpoint, state) if state.step == total else None


def train(spec: JobSpec, run: RunDirectory, events: EventLog) -> Trained:
    """Train to the end of the recipe, through the failures that `recovery` allows.

    Needs a connected Ray. Raises InputError when the data cannot fill a batch, and TrainingGaveUp
    when the failures were too many or of a kind that comes again.
    """
    check_data(spec, run)
    done = finished(spec, run, events)
    if done is not None:
        return done
    _tell_of_idle_cpus(spec.cluster)
    remove_leftovers(run.checkpoints)
    # Ray Train's own list of checkpoints would name ones that are pruned; state.json is the truth.
    remove(run.checkpoints / "checkpoint_manager_snapshot.json")
    events.emit("stage_started", stage="train")
    began = time.monotonic()
    _fit(_trainer(spec, run, events), events)
    # A rank that was killed while it wrote could not tidy up.
    remove_leftovers(run.checkpoints)
    done = finished(spec, run, events)
    if done is None:
        raise CheckpointNotSaved(str(run.checkpoints), "the last checkpoint is missing")
    events.emit("stage_finished", stage="train", seconds=round(time.monotonic() - began, 3))
    return done


def check_data(spec: JobSpec, run: RunDirectory) -> None:
    """Refuse data that the recipe cannot use: too few samples for a global batch, too small patches."""
    patches = open_patches(run.train_npz)
    check_patches(spec.train, patches)
    train, test = len(patches), len(open_patches(run.test_npz))
    problem = batch_problem(spec, Supply(str(run.train_npz), pairs=0, train=train, test=test))
    if problem:
        raise InputError(problem)


def _trainer(spec: JobSpec, run: RunDirectory, events: EventLog) -> GroupTrainer:
    watch = GroupWatch(events, _generations_so_far(events), _seconds(spec.recovery.step_timeout_s))
    scaling = _scaling(spec)
    return GroupTrainer(
        functools.partial(train_rank, _job(spec, run)),
        failure_policy=GroupFailurePolicy(spec.recovery.max_failures, events, watch),
        scaling_policy=GrowsAtCheckpoints(scaling, events) if spec.cluster.elastic else None,
        backend_config=_backend(spec, run),
        scaling_config=scaling,
        run_config=RunConfig(
            name=run.checkpoints.name,
            storage_path=str(run.root),
            checkpoint_config=CheckpointConfig(num_to_keep=None),
            callbacks=[
                _rank_order(spec.cluster),
                Fence(events),
                FreeHosts(),
                watch,
                DrainWatch(events),
                *_standbys(spec, events, watch),
            ],
            worker_runtime_env={"env_vars": process_environment(spec.cluster.threads, run)},
        ),
    )


def _fit(trainer: GroupTrainer, events: EventLog) -> None:
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise TrainingGaveUp(classify(error).detail, _why_given_up(events)) from error
    except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
        how = str(error).splitlines()[0].rstrip(".")
        raise TrainingGaveUp(f"the controller died: {how}", "launch again to resume") from error


def _job(spec: JobSpec, run: RunDirectory) -> TrainJob:
    return TrainJob(
        run=run,
        recipe=spec.train,
        slices=spec.cluster.max_workers,
        every_s=_seconds(spec.checkpoint.every_s),
        keep=spec.checkpoint.keep,
        evaluate_every=spec.evaluate.every_epochs,
        evaluate_batch=spec.evaluate.batch,
        compile_cache=run.compiled if _computes_on_cpu(spec.cluster) else None,
        data=checksums_of(run.train_npz, run.test_npz),
        data_sample=sample_checksum(open_patches(run.train_npz), open_patches(run.test_npz)),
    )


def _computes_on_cpu(cluster: ClusterSpec) -> bool:
    # Kept graphs were seen to give the same bytes there; nobody has looked on an NPU.
    return cluster.device == "cpu" or cluster.collective == "mccl"


def _backend(spec: JobSpec, run: RunDirectory) -> MindSporeConfig:
    cluster = spec.cluster
    return MindSporeConfig(
        device=cluster.device,
        threads=cluster.threads,
        run=run,
        soc=cluster.soc,
        rendezvous=cluster.rendezvous,
        hosts=_stated_hosts(cluster),
        collective=cluster.collective,
    )


def _rank_order(cluster: ClusterSpec) -> RankOrder:
    in_super_pods = cluster.device == "ascend" and cluster.soc == "a3"
    return RankOrder(_stated_hosts(cluster) if in_super_pods else None)


def _stated_hosts(cluster: ClusterSpec) -> dict[str, dict[int, str]]:
    return {host.address: host.devices for host in cluster.hosts}


def _standbys(spec: JobSpec, events: EventLog, watch: GroupWatch) -> list[Standbys]:
    # A worker that waits has no NPU, and could not be given one later.
    return [Standbys(events, watch)] if spec.cluster.device == "cpu" and spec.recovery.standbys else []


def _tell_of_idle_cpus(cluster: ClusterSpec) -> None:
    """`threads` is never taken from the host, so somebody must say that this host could do more."""
    cpus, ranks = int(ray.cluster_resources().get("CPU", 0)), cluster.max_workers
    if cluster.address == "local" and cluster.device == "cpu" and cpus // ranks > cluster.threads:
        used, could = ranks * cluster.threads, cpus // ranks
        told = "%s rank(s) compute on %s of %s CPUs; --set cluster.threads=%s would use them"
        logger.warning(told, ranks, used, cpus, could)


def _scaling(spec: JobSpec) -> ScalingConfig:
    cluster = spec.cluster
    resource, each = cluster.rank_resource
    workers = (cluster.min_workers, cluster.max_workers) if cluster.elastic else cluster.max_workers
    return ScalingConfig(
        num_workers=workers,
        resources_per_worker={"CPU": 1.0, resource: float(each)},
        # Only an elastic group is looked at, and that at its checkpoints (training/growth.py).
        elastic_resize_monitor_interval_s=0.0,
    )


def process_environment(threads: int, run: RunDirectory) -> dict[str, str]:
    """What must be in a rank's environment before its process starts.

    OpenMP and BLAS read their threads and kernels once, when they are loaded, and the mark must be in
    what the kernel shows, so that a later generation knows what is left over.
    """
    return {**thread_variables(threads), **_SAME_START, "GLOG_v": "3", RUN_VARIABLE: str(run.root)}


def _why_given_up(events: EventLog) -> str:
    told = [event["reason"] for event in events.read() if event["event"] == "giving_up"]
    return told[-1] if told else "the controller failed"


def _seconds(value: float | str) -> float | None:
    """A number of seconds, or None for `auto`."""
    return None if isinstance(value, str) else float(value)


def _generations_so_far(events: EventLog) -> int:
    return max((event.get("generation", 0) for event in events.read()), default=0)
