"""Reads from a job's shards where each patch was cut, and estimates the shift of SAR in each scene."""

from collections.abc import Sequence

import numpy as np

from sdnet.data.places import Places
from sdnet.data.store import extra_array
from sdnet.errors import InputError
from sdnet.preparation.alignment import REACH_PX, SceneShift, scene_shift
from sdnet.preparation.sen12 import Pair
from sdnet.preparation.shards import Shard, ShardReport, patches_path
from sdnet.preparation.work import Work

_SURFACE = (2 * REACH_PX + 1, 2 * REACH_PX + 1)


def places_of(work: Work, shards: Sequence[Shard], reports: dict[str, ShardReport]) -> Places:
    """The place of each match of these shards, in their order; scenes are numbered by appearance."""
    pairs = [pair for shard in shards for pair in shard.pairs]
    counts = [count for shard in shards for count in reports[shard.name].patches_per_pair]
    numbers = {scene: number for number, scene in enumerate(dict.fromkeys(pair.scene for pair in pairs))}
    centres = [
        _extra(work, shard, "centres", "i", (reports[shard.name].patches, 2))
        for shard in shards
        if reports[shard.name].patches
    ]
    return Places(
        tuple(numbers),
        np.repeat([numbers[pair.scene] for pair in pairs], counts),
        np.repeat(np.arange(len(pairs)), counts),
        np.concatenate(centres),
    )


def estimate_shifts(work: Work, reports: dict[str, ShardReport]) -> dict[str, SceneShift]:
    """The shift of each training scene, by its name; misregistered pairs are indices into all its pairs."""
    surfaces: dict[str, list[np.ndarray]] = {}
    for shard in work.train:
        # A shard without a patch cannot be opened; its pairs have no texture to align by either.
        found = (
            _extra(work, shard, "surfaces", "f", (len(shard.pairs), *_SURFACE))
            if reports[shard.name].patches
            else np.full((len(shard.pairs), *_SURFACE), np.nan, np.float32)
        )
        for pair, surface in zip(shard.pairs, found, strict=True):
            surfaces.setdefault(pair.scene, []).append(surface)
    return {scene: scene_shift(of_scene) for scene, of_scene in surfaces.items()}


def alignment_table(work: Work, shifts: dict[str, SceneShift]) -> dict[str, object]:
    """For the manifest: the distribution of trusted shifts, scenes without one, misregistered pairs."""
    distances = [shift.distance_px for shift in shifts.values() if shift.trusted]
    names: dict[str, list[Pair]] = {}
    for shard in work.train:
        for pair in shard.pairs:
            names.setdefault(pair.scene, []).append(pair)
    return {
        "scenes": {scene: [shift.rows, shift.columns] for scene, shift in shifts.items() if shift.trusted},
        "median_px": round(float(np.median(distances)), 2) if distances else None,
        "largest_px": round(max(distances), 2) if distances else None,
        "not_trusted": {scene: shift.reason for scene, shift in shifts.items() if not shift.trusted},
        "misregistered": [
            names[scene][number].name for scene, shift in shifts.items() for number in shift.misregistered
        ],
    }


def _extra(work: Work, shard: Shard, name: str, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    path = patches_path(work.directory, shard)
    found = extra_array(path, name, kind, shape)
    if found is None:
        raise InputError(f"{path} holds no {name}; delete it and prepare again")
    return found
