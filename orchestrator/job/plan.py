"""Plans a job without any change on disk or on the cluster: ranks, environments, rank table, needs.

Pure, except that it reads the data and the run directory as `launch` does. Values that only the running cluster knows
are marked: the port of the scheduler, and the hosts if the job names none.
"""

import os
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.ascend.rank_table.table import RankTable, build_rank_table
from orchestrator.errors import CorruptData
from orchestrator.job.checkpoints import finished_summary, refuse_another_job, refuse_changed_inputs
from orchestrator.job.data.copies import Copies, copies_in, planned_copies
from orchestrator.job.data.inputs import Supply, batch_problem, notes_of, source_of, supply_of
from orchestrator.job.memory import memory_bytes
from orchestrator.job.new_run import refuse_misplaced
from orchestrator.job.planned_ranks import PlannedRank, ascend_places, planned_ranks
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import ClusterSpec, JobSpec
from orchestrator.ray_cluster.address import address_to_join
from orchestrator.report.shifts import shifts_line
from orchestrator.storage import StorageError
from sdnet.errors import InputError

_STAGES = ("preprocess", "local data", "train", "evaluate")
_PATCH_BYTES = 64 * 128
_MODEL_BYTES = 5.4e6
# A rank's resident memory with MindSpore imported and SDNet compiled, measured on CPU.
_RANK_BYTES = 1.5e9


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage and what it will do, in a line."""

    name: str
    work: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a job.

    needs: estimates, bytes where the name says so. notes: remarks about the data.
    problem: what `launch` would refuse, or empty. warning: what may still go wrong, or empty.
    """

    name: str
    run_directory: str
    stages: tuple[PlannedStage, ...]
    ranks: tuple[PlannedRank, ...]
    pairs: int
    shards: int
    needs: dict[str, int]
    rank_table: RankTable | None
    notes: tuple[str, ...]
    problem: str
    warning: str


def plan_as_dict(plan: Plan) -> dict[str, Any]:
    """The plan as JSON values; `rank_table` is there only for Ascend jobs that name their hosts."""
    table = plan.rank_table
    fields = {
        "name": plan.name,
        "run_directory": plan.run_directory,
        "stages": [asdict(stage) for stage in plan.stages],
        "ranks": [
            {"rank": r.rank, "host": r.host, "local_rank": r.local_rank, "device": r.device,
             "environment": r.environment}
            for r in plan.ranks
        ],
        "pairs": plan.pairs,
        "shards": plan.shards,
        "needs": plan.needs,
        "notes": list(plan.notes),
        "problem": plan.problem,
        "warning": plan.warning,
    }  # fmt: skip
    return fields if table is None else {**fields, "rank_table": table.to_dict()}


def build_plan(spec: JobSpec) -> Plan:
    """Plan the job. Raises InputError when the data, the devices or the storage cannot be used.

    A finished run needs no data any more, so its images may be gone.
    """
    run = RunDirectory.of(spec.storage, spec.name)
    refuse_misplaced(spec, run)
    run.refuse_file_in_the_way()
    is_finished, run_problem = _judged(spec, run)
    supply, copies = _data(spec, run, is_finished)
    places = ascend_places(spec.cluster) if spec.cluster.device == "ascend" and spec.cluster.hosts else None
    table = build_rank_table(places, spec.cluster.soc) if places else None
    ranks = planned_ranks(spec, run, places)
    needs = {**_needs(spec, supply, len(ranks)), "copied_bytes_per_host": copies.size_bytes}
    finished = (f"{run.root} is finished, so a launch does nothing",) if is_finished else ()
    problem, warning = ("", "") if is_finished else _doubts(spec, supply, copies, needs)
    return Plan(
        name=spec.name,
        run_directory=str(run.root),
        stages=_idle_stages() if is_finished else _stages(spec, supply, copies, shifts_line(spec, run)),
        ranks=ranks,
        pairs=supply.pairs,
        shards=supply.shards,
        needs=needs,
        rank_table=table,
        notes=(*notes_of(spec, supply), *finished),
        problem=run_problem or problem,
        warning=warning,
    )


def _judged(spec: JobSpec, run: RunDirectory) -> tuple[bool, str]:
    """Whether the run has finished, and why `launch` would refuse its directory as it is."""
    try:
        run.refuse_unusable()
        if not run.root.exists():
            return False, ""
        refuse_another_job(spec, run)
        if finished_summary(spec, run, record=None) is not None:
            return True, ""
        refuse_changed_inputs(spec, run)
    except (InputError, StorageError, CorruptData) as error:
        return False, str(error)
    return False, ""


def _data(spec: JobSpec, run: RunDirectory, is_finished: bool) -> tuple[Supply, Copies]:
    """What there is to train and test on, and what each host copies of it; nothing for a finished run without data."""
    try:
        supply = supply_of(spec.data)
        return supply, planned_copies(spec, run, supply, _PATCH_BYTES)
    except (InputError, StorageError):
        if not is_finished:
            raise
    return Supply(source_of(spec.data), pairs=0, train=0, test=0), copies_in(run.train_npz, 0)


def _doubts(spec: JobSpec, supply: Supply, copies: Copies, needs: dict[str, int]) -> tuple[str, str]:
    """Why `launch` would refuse the job's data or its cluster, and what may still go wrong; each may be empty."""
    cluster = spec.cluster
    problem = batch_problem(spec, supply) or _size_problem(cluster) or copies.problem(cluster.cache)
    return problem, _memory_warning(cluster, needs) or _address_warning(cluster)


def _size_problem(cluster: ClusterSpec) -> str:
    """Why this host is too small for a job that starts Ray here. `launch` checks other clusters."""
    if cluster.address != "local" or cluster.device != "cpu":
        return ""
    return cluster.why_too_large([os.cpu_count() or 1])


def _address_warning(cluster: ClusterSpec) -> str:
    """Why a launch in this shell could not join its cluster. Another shell may have another RAY_ADDRESS."""
    try:
        address_to_join(cluster.address, os.environ)
    except InputError as error:
        return str(error)
    return ""


def _memory_warning(cluster: ClusterSpec, needs: dict[str, int]) -> str:
    """Why the ranks may not fit into the memory of this host or of its container, if they run here."""
    there, needed = memory_bytes(), needs["memory_bytes_per_rank"] * cluster.max_workers
    if cluster.address != "local" or there >= needed:
        return ""
    return (
        f"{cluster.max_workers} rank(s) need about {needed / 2**30:.1f} GiB of memory and this host or "
        f"container has {there / 2**30:.1f} GiB; lower cluster.workers or train.batch"
    )


def _idle_stages() -> tuple[PlannedStage, ...]:
    return tuple(PlannedStage(name, "nothing: the run is finished") for name in _STAGES)


def _stages(spec: JobSpec, supply: Supply, copies: Copies, shifts: str) -> tuple[PlannedStage, ...]:
    recipe = spec.train
    ranks = spec.cluster.max_workers
    patches = f"{supply.train} training and {supply.test} test patches"
    made = f"{supply.pairs} pairs of {supply.source} in {supply.shards} shards: at most {patches}"
    used = f"nothing: {patches} of {supply.source} are used in place"
    on = f" on {spec.cluster.threads} CPU(s) each" if spec.cluster.device == "cpu" else ""
    batch = f"{ranks} rank(s) of batch {recipe.batch}{on}, {spec.global_batch} samples a step"
    every = f"every {spec.evaluate.every_epochs} epoch(s), on all ranks"
    works = (
        "; ".join(filter(None, (made if supply.pairs else used, shifts))),
        copies.describe(spec.cluster.cache),
        f"{recipe.epochs} epochs, {batch}, lr {recipe.lr}",
        f"FPR95 and accuracy {every}",
    )
    return tuple(PlannedStage(name, work) for name, work in zip(_STAGES, works, strict=True))


def _needs(spec: JobSpec, supply: Supply, ranks: int) -> dict[str, int]:
    patches = supply.train + supply.test
    # Shards and merged files are on disk at the same time, until a person deletes the shards.
    made = 2 * patches * _PATCH_BYTES if supply.pairs else 0
    # A checkpoint has the model and Adam's two moments. On disk: the `keep` newest, the best, and one being written.
    checkpoints = (spec.checkpoint.keep + 2) * 3 * _MODEL_BYTES
    return {
        "patches_at_most": patches,
        "disk_bytes": int(made + checkpoints),
        "memory_bytes_per_rank": int(_RANK_BYTES + 4 * spec.train.batch * _PATCH_BYTES),
        "page_cache_bytes_per_host": patches * _PATCH_BYTES,
        "ranks": ranks,
    }
