"""Plans preprocessing: pairs, split by scene and cut into shards. Opens no image."""

import os
from dataclasses import dataclass
from pathlib import Path

from sdnet.config import ImageConfig, PatchConfig, SplitConfig
from sdnet.errors import InputError, one_line, shown
from sdnet.files import read_json
from sdnet.preparation.layouts import image_files
from sdnet.preparation.sen12 import Listing, Pair, find_pairs, split_scenes
from sdnet.preparation.shards import (
    Shard,
    cut_into_shards,
    gives_other_patches,
    is_known,
    is_outdated,
    pairs_per_shard,
)

_IMAGES = ImageConfig()
_BAD_NAMED = 10
NO_PARTNER = "has no partner"
_NAMED_IN_NOTES = 3
# The folder of the shards in the output folder.
SHARDS = "shards"


@dataclass(frozen=True, slots=True)
class Work:
    """A preprocessing job. seed: of the split and of the non-matches."""

    listing: Listing
    train: tuple[Shard, ...]
    test: tuple[Shard, ...]
    out: Path
    patches: PatchConfig
    seed: int
    max_bad_images: float

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All shards, training ones first."""
        return self.train + self.test

    @property
    def directory(self) -> Path:
        """The folder of the shards."""
        return self.out / SHARDS


def plan_work(
    images: Path,
    out: Path,
    patches: PatchConfig,
    split: SplitConfig,
    max_bad_images: float,
    image_config: ImageConfig = _IMAGES,
) -> Work:
    """List the pairs, split them by scene, and cut them into shards; no image is opened.

    Raises InputError for images or a split that give no training or no test set, and for too many images
    without a partner.
    """
    if not 0 <= max_bad_images <= 1:
        raise InputError(f"max_bad_images is {shown(max_bad_images)}; it must be from 0 to 1")
    listing = find_pairs(images, image_config.layout, split.scene_pattern)
    train, test = split_scenes((pair.scene for pair in listing.pairs), split)
    size = pairs_per_shard(len(listing.pairs))

    def shards(name: str, scenes: frozenset[str]) -> tuple[Shard, ...]:
        pairs: tuple[Pair, ...] = tuple(pair for pair in listing.pairs if pair.scene in scenes)
        return tuple(cut_into_shards(name, images, pairs, size, image_config.max_pixels))

    work = Work(
        listing=listing,
        train=shards("train", frozenset(train)),
        test=shards("test", frozenset(test)),
        out=out,
        patches=patches,
        seed=split.seed,
        max_bad_images=max_bad_images,
    )
    refuse_too_many(orphans(work), work)
    return work


def notes(work: Work, split: SplitConfig) -> tuple[str, ...]:
    """Warnings about the images, one sentence each; empty if there are none."""
    found, pairs = [], work.listing.pairs
    drawn = split.train_scenes is None and split.scene_pattern is None
    if drawn and all(pair.scene == pair.name for pair in pairs):
        found.append(
            f"each of the {len(pairs)} pairs is a scene of its own, so neighbours on the ground may be on "
            "both sides of the split; name the scenes with data.split.scene_pattern, or give train_scenes "
            "and test_scenes"
        )
    if split.train_scenes is not None and split.train != SplitConfig().train:
        found.append("train_scenes and test_scenes choose the scenes, so data.split.train has no effect")
    if work.listing.orphans:
        alone = [item["image"] for item in orphans(work)]
        found.append(f"{len(alone)} image(s) have no partner and are left out: {some_of(alone)}")
    unread = _folders_without_part(work)
    if unread:
        found.append(
            f"{len(unread)} folder(s) with images are no part of the layout and are left out: {some_of(unread)}"
        )
    used = {pair.scene for shard in work.shards for pair in shard.pairs}
    unused = list(dict.fromkeys(pair.scene for pair in pairs if pair.scene not in used))
    if unused:
        found.append(
            f"{len(unused)} scene(s) match neither train_scenes nor test_scenes and are left out: "
            f"{some_of(unused)}"
        )
    return tuple(found)


def _folders_without_part(work: Work) -> list[str]:
    """Folders below the images from which no pair and no orphan comes, although they hold images. Sorted."""
    root, listing = work.shards[0].root, work.listing
    images = [*listing.orphans, *(path for pair in listing.pairs for path in (pair.optical, pair.sar))]
    used = {path.parent for path in images}
    found = []
    for place, inner, _ in os.walk(root):
        inner[:] = [name for name in inner if not name.startswith((".", "__"))]
        folder = Path(place)
        if folder not in used and next(image_files(folder), None) is not None:
            found.append(folder.relative_to(root).as_posix())
    return sorted(found)


def some_of(names: list[str]) -> str:
    """The first of these names, for a note."""
    return ", ".join(one_line(name) for name in names[:_NAMED_IN_NOTES]) + (
        ", ..." if len(names) > _NAMED_IN_NOTES else ""
    )


def images_changed(work: Work) -> bool | None:
    """Whether the images changed after the result was made; None if that is not known of every shard.

    Only shards whose files have another path, size or modification time are compared: by the bytes of the files,
    then by the patches. Nothing is known of a shard that was deleted, nor if the number of pairs changed and some
    are of scenes that are not used. Raises OSError.
    """
    try:
        pairs = read_json(work.out / "manifest.json")["pairs"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(pairs, int):
        return None
    if pairs != len(work.listing.pairs):
        return True if sum(len(shard.pairs) for shard in work.shards) == len(work.listing.pairs) else None
    outdated = [shard for shard in work.shards if is_outdated(shard, work.directory, work.patches)]
    if any(gives_other_patches(shard, work.directory, work.patches) for shard in outdated):
        return True
    return False if all(is_known(shard, work.directory) for shard in work.shards) else None


def is_recorded(work: Work) -> bool:
    """Whether the shards on disk were made of exactly these files, by their names, sizes and modification times."""
    return all(
        is_known(shard, work.directory) and not is_outdated(shard, work.directory, work.patches)
        for shard in work.shards
    )


def orphans(work: Work) -> list[dict[str, str]]:
    """Images without a partner, as the manifest lists them."""
    root = work.shards[0].root
    return [
        {"image": path.relative_to(root).as_posix(), "reason": NO_PARTNER} for path in work.listing.orphans
    ]


def refuse_too_many(skipped: list[dict[str, str]], work: Work) -> None:
    """Raise InputError when more images are bad than `max_bad_images` allows."""
    if len(skipped) > work.max_bad_images * len(work.listing.pairs):
        named = "; ".join(f"{item['image']} {item['reason']}" for item in skipped[:_BAD_NAMED])
        raise InputError(
            f"{len(skipped)} bad images for {len(work.listing.pairs)} pairs, above data.max_bad_images "
            f"{work.max_bad_images}: {named}; correct or remove them, or raise the limit"
        )
