"""What can be known of a job's data before anything starts: how much there is, and what is wrong with it."""

from dataclasses import dataclass

from orchestrator.spec import DataSpec, JobSpec
from sdnet.data.sen12 import find_pairs, split_scenes
from sdnet.data.store import open_patches
from sdnet.data.synthetic import scene_of_each_pair
from sdnet.errors import InputError
from sdnet.metrics import check_labels
from sdnet.paths import full_path


@dataclass(frozen=True, slots=True)
class Supply:
    """What a job's data give at most. pairs: of images; 0 for patches made elsewhere. Others: patches."""

    source: str
    pairs: int
    train: int
    test: int


def check_inputs(spec: JobSpec) -> None:
    """Raise InputError for data that cannot be trained on; folders are listed, no image is read."""
    problem = batch_problem(spec, supply_of(spec.data))
    if problem:
        raise InputError(problem)


def supply_of(data: DataSpec) -> Supply:
    """What there is to train and test on. Raises InputError for none, too few scenes, or no permission."""
    try:
        return _prepared(data.prepared) if data.prepared is not None else _from_images(data)
    except OSError as error:
        raise InputError(
            f"{error.filename or 'the data'} cannot be read ({error.strerror}); let this user read it, or "
            "give another folder in `data`"
        ) from None


def batch_problem(spec: JobSpec, supply: Supply) -> str:
    """Why a step would take more samples than the data can give; empty when they may suffice."""
    if supply.train >= spec.global_batch:
        return ""
    ranks = spec.cluster.max_workers
    return (
        f"train.batch is {spec.train.batch} on {ranks} rank(s), {spec.global_batch} samples a step, but "
        f"{supply.source} gives at most {supply.train}; lower train.batch, or give more pairs"
    )


def _prepared(given: str) -> Supply:
    folder = full_path(given, "data.prepared")
    test = open_patches(folder / "test.npz")
    check_labels(test.labels, test.path)
    return Supply(given, 0, len(open_patches(folder / "train.npz")), len(test))


def _from_images(data: DataSpec) -> Supply:
    if data.images is None:
        source, scenes = f"data.synthetic (seed {data.synthetic.seed})", scene_of_each_pair(data.synthetic)
    else:
        source = data.images
        scenes = [pair.scene for pair in find_pairs(full_path(data.images, "data.images")).pairs]
    train, test = (set(chosen) for chosen in split_scenes(scenes, data.split))
    per_pair, non_matches = data.patches.per_pair, data.patches.negatives
    return Supply(
        source,
        pairs=len(scenes),
        train=sum(scene in train for scene in scenes) * per_pair,
        test=round(sum(scene in test for scene in scenes) * per_pair * (1 + non_matches)),
    )
