"""What can be known of a job's data before anything starts: how much there is, and what is wrong with it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.job.data.files import followed
from orchestrator.job.mounted import notes_on_mounts, refuse_unmounted
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import DataSpec, JobSpec
from orchestrator.storage import StorageUnavailable, storage_error
from sdnet.data.store import open_patches, open_training_patches
from sdnet.errors import InputError
from sdnet.evaluation.metrics import check_labels
from sdnet.paths import full_path
from sdnet.preparation.copies import refuse_equal_halves
from sdnet.preparation.sen12 import split_scenes
from sdnet.preparation.shards import pairs_per_shard
from sdnet.preparation.synthetic import scene_of_each_pair
from sdnet.preparation.work import Work, notes, plan_work
from sdnet.recipes import patches_for


@dataclass(frozen=True, slots=True)
class Supply:
    """The most that a job's data can give.

    pairs, shards: of images; 0 for patches made elsewhere. train, test: patches. notes: warnings that
    do not prevent the job from running.
    """

    source: str
    pairs: int
    train: int
    test: int
    shards: int = 0
    notes: tuple[str, ...] = ()


def check_inputs(spec: JobSpec) -> Supply:
    """What there is to train and test on; folders are listed, no image is opened.

    Raises InputError for data that cannot be trained on, and StorageUnavailable when storage fails.
    """
    supply = supply_of(spec.data)
    problem = batch_problem(spec, supply)
    if problem:
        raise InputError(problem)
    return supply


def notes_of(spec: JobSpec, supply: Supply) -> tuple[str, ...]:
    """Warnings that do not prevent the job from running: a sentence each."""
    mounts = notes_on_mounts(spec.storage, spec.data)
    return (*mounts, *_unused_cluster_keys(spec), *_unused_data_keys(spec), *supply.notes)


def _unused_cluster_keys(spec: JobSpec) -> Iterator[str]:
    cluster = spec.cluster
    given = {"hosts": bool(cluster.hosts), "collective": cluster.collective != "auto"}
    unused = [f"cluster.{key}" for key, is_given in given.items() if is_given and cluster.device == "cpu"]
    if unused:
        yield f"cluster.device is cpu, so {_without_effect(unused)}: the ranks compute on CPUs"


def _unused_data_keys(spec: JobSpec) -> Iterator[str]:
    data, left_out = spec.data, DataSpec()
    source = "images" if data.prepared is None else "prepared"
    keys = keys_without_effect({"images": data.images, "prepared": data.prepared})
    # The recipe raises some values of `patches` by itself.
    left_out = left_out.model_copy(update={"patches": patches_for(spec.train, left_out.patches)})
    unused = [f"data.{key}" for key in keys if getattr(data, key) != getattr(left_out, key)]
    if unused:
        what = "patches that are cut already" if source == "prepared" else "images"
        yield f"data.{source} gives {what}, so {_without_effect(unused)}"


def _without_effect(keys: list[str]) -> str:
    return f"{' and '.join(keys)} {'has' if len(keys) == 1 else 'have'} no effect"


def supply_of(data: DataSpec) -> Supply:
    """What there is to train and test on.

    Raises InputError for no data, too few scenes, no permission or a file system that is not mounted, and
    StorageUnavailable for a failure that may pass.
    """
    for key in ("images", "prepared"):
        if (folder := getattr(data, key)) is not None:
            refuse_unmounted(f"data.{key}", folder)
    try:
        if data.prepared is not None:
            return _prepared(data.prepared)
        return _synthetic(data) if data.images is None else _from_images(data, data.images)
    except OSError as error:
        refuse_passing(error, source_of(data))
        raise InputError(
            f"{error.filename or 'the data'} cannot be read ({error.strerror}); let this user read it, or "
            "give another folder in `data`"
        ) from None


def source_of(data: DataSpec) -> str:
    """The source of the data, for messages: a folder, or the seed of synthetic pairs."""
    return data.prepared or data.images or f"synthetic pairs (seed {data.synthetic.seed})"


def batch_problem(spec: JobSpec, supply: Supply) -> str:
    """Why the data cannot fill the batch of one step; empty when they may suffice."""
    if supply.train >= spec.global_batch:
        return ""
    ranks = spec.cluster.max_workers
    synthetic = spec.data.images is None and spec.data.prepared is None
    remedy = "use train.recipe demo, or give data.images" if synthetic else "or give more pairs"
    return (
        f"train.batch is {spec.train.batch} on {ranks} rank(s), {spec.global_batch} samples a step, but "
        f"{supply.source} gives at most {supply.train}; lower train.batch, {remedy}"
    )


def work_of(data: DataSpec, images: Path, run: RunDirectory) -> Work:
    """The shards that a run makes of images. Raises InputError as `plan_work`."""
    return plan_work(images, run.data, data.patches, data.split, data.max_bad_images, data.image_config)


def images_folder(given: str) -> Path:
    """`data.images` as a path that is the same on every host."""
    return full_path(given, "data.images")


def refuse_passing(error: OSError, place: str) -> None:
    """Raise StorageUnavailable for an error that may pass: a lost server is not the user's mistake."""
    failure = storage_error(error.filename or place, error)
    if isinstance(failure, StorageUnavailable):
        raise failure from error


def keys_without_effect(data: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys of a job's `data` that describe a source which this job does not use."""
    if data.get("prepared") is not None:
        return ("synthetic", "patches", "split", "max_bad_images", "max_pixels")
    return () if data.get("images") is None else ("synthetic",)


def prepared_files(given: str) -> tuple[Path, Path]:
    """train.npz and test.npz of `data.prepared`, which may be the `data/` of another run."""
    folder = full_path(given, "data.prepared")
    return followed(folder / "train.npz"), followed(folder / "test.npz")


def _prepared(given: str) -> Supply:
    train, test = prepared_files(given)
    tested = open_patches(test)
    check_labels(tested.labels, tested.path)
    trained = open_training_patches(train)
    for patches in (trained, tested):
        refuse_equal_halves(patches)
    return Supply(given, 0, len(trained), len(tested))


def _synthetic(data: DataSpec) -> Supply:
    scenes = Counter(scene_of_each_pair(data.synthetic))
    sides = [sum(scenes[scene] for scene in chosen) for chosen in split_scenes(scenes, data.split)]
    note = "neither data.images nor data.prepared is given, so the job trains on synthetic pairs"
    return _supply(data, f"data.synthetic (seed {data.synthetic.seed})", scenes.total(), sides, (note,))


def _from_images(data: DataSpec, images: str) -> Supply:
    work = plan_work(
        images_folder(images), Path(), data.patches, data.split, data.max_bad_images, data.image_config
    )
    sides = [sum(len(shard.pairs) for shard in shards) for shards in (work.train, work.test)]
    return _supply(data, images, len(work.listing.pairs), sides, notes(work, data.split))


def _supply(data: DataSpec, source: str, pairs: int, sides: list[int], notes: tuple[str, ...]) -> Supply:
    """sides: the pairs of the training scenes and of the test scenes."""
    train, test = (side * data.patches.per_pair for side in sides)
    return Supply(
        source,
        pairs=pairs,
        train=train,
        test=round(test * (1 + data.patches.negatives)),
        shards=sum(-(-side // pairs_per_shard(pairs)) for side in sides),
        notes=notes,
    )
