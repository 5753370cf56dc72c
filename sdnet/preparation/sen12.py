"""Lists image pairs on disk, and splits them by scene."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from sdnet.config import Layout, SplitConfig
from sdnet.errors import InputError, shown
from sdnet.preparation.layouts import Image, are_swapped, images_of, where_images_belong
from sdnet.preparation.scene_pattern import ScenePattern

_TEST_SCENES = 2  # the fewest


@dataclass(frozen=True, slots=True, order=True)
class Pair:
    """One place seen by both sensors. name: unique in the listing, the file's stem without its sensor."""

    scene: str
    name: str
    optical: Path
    sar: Path


@dataclass(frozen=True, slots=True)
class Listing:
    """The pairs of a folder in natural order of their names, and its images without a partner."""

    pairs: tuple[Pair, ...]
    orphans: tuple[Path, ...]


def find_pairs(root: Path, layout: Layout = "auto", scene_pattern: str | None = None) -> Listing:
    """List the pairs below `root`; no file is opened, hidden files are ignored.

    scene_pattern: a regular expression with one group, the scene, that matches the whole name of a pair.
    Raises InputError when there are none, when two files are the same image of a pair, or when the layout is
    ambiguous.
    """
    if not root.is_dir():
        name = str(root)
        name = name if name == name.strip() else shown(name)  # without quotes, a space is not seen
        raise InputError(f"images {name} is not a folder; give a SEN1-2 tree, or a folder with s1/ and s2/")
    try:
        optical, sar = _by_name(images_of(root, layout))
    except OSError as error:
        raise InputError(
            f"images {error.filename or root} cannot be listed ({error.strerror}); "
            "let this user read it, or mount its storage"
        ) from None
    pairs = [Pair(*key, optical[key], sar[key]) for key in optical.keys() & sar.keys()]
    if not pairs:
        raise InputError(
            f"images {root} holds no pair ({len(optical)} optical, {len(sar)} SAR images)"
            f"{_unlike_names(root, optical.values(), sar.values())}; {where_images_belong(layout)}"
        )
    _refuse_swapped(pairs)
    if scene_pattern is not None:
        pattern = ScenePattern(scene_pattern)
        pairs = [replace(pair, scene=pattern.scene_of(pair.name)) for pair in pairs]
    orphans = [path for key, path in (optical | sar).items() if (key in optical) != (key in sar)]
    return Listing(tuple(sorted(pairs, key=_natural)), tuple(sorted(orphans)))


def split_scenes(scenes: Iterable[str], split: SplitConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Training and test scenes, disjoint and each sorted.

    Chosen by patterns, or drawn with a seed; `split.train` is then the share that trains. At least two scenes
    test, because the non-matches of a scene come from another one.
    Raises InputError for too few scenes, a pattern that matches none, or a scene that matches both patterns.
    """
    known = sorted(set(scenes))
    if split.train_scenes is not None and split.test_scenes is not None:
        train = _matching(known, split.train_scenes, "train_scenes")
        test = _matching(known, split.test_scenes, "test_scenes")
        both = sorted(set(train) & set(test))
        if both:
            raise InputError(
                f"scene {both[0]} matches train_scenes and test_scenes; make the patterns disjoint"
            )
        if len(test) < _TEST_SCENES:
            raise InputError(
                f"the only test scene is {test[0]}; non-matches come from another scene, so give at least 2"
            )
        return train, test
    if len(known) < 1 + _TEST_SCENES:
        raise InputError(
            f"the images have {len(known)} scene(s) ({', '.join(known)}); a split by scene needs at "
            "least 3: one to train and two to test, since non-matches come from another scene; "
            "data.split.scene_pattern can name scenes in another way"
        )
    order = np.random.Generator(np.random.PCG64(split.seed)).permutation(len(known))
    count = min(max(round(split.train * len(known)), 1), len(known) - _TEST_SCENES)
    drawn = {known[index] for index in order[:count]}
    return tuple(sorted(drawn)), tuple(scene for scene in known if scene not in drawn)


def _unlike_names(root: Path, optical: Iterable[Path], sar: Iterable[Path]) -> str:
    """One image of each sensor as an example; empty if a sensor has none."""
    examples = [paths[0].relative_to(root) for paths in map(sorted, (optical, sar)) if paths]
    if len(examples) < 2:
        return ""
    return f": for example, {examples[0]} and {examples[1]} do not have the same name"


def _by_name(images: Iterable[Image]) -> tuple[dict[tuple[str, str], Path], dict[tuple[str, str], Path]]:
    """Optical and SAR images by scene and name, both in Unicode's form NFC."""
    optical: dict[tuple[str, str], Path] = {}
    sar: dict[tuple[str, str], Path] = {}
    for image in images:
        of_sensor = sar if image.sensor == "sar" else optical
        other = of_sensor.setdefault((_composed(image.scene), _composed(image.name)), image.path)
        if other != image.path:
            paths = sorted((image.path, other))
            # Both forms look the same on a screen.
            look_alike = len({_composed(str(path)) for path in paths}) == 1
            unlike = " in two forms of Unicode (NFC and NFD)" if look_alike else ""
            raise InputError(f"{paths[0]} and {paths[1]} have the same name{unlike}; rename or remove one")
    return optical, sar


def _refuse_swapped(pairs: Iterable[Pair]) -> None:
    for pair in pairs:
        if are_swapped(pair.optical, pair.sar):
            raise InputError(
                f"{pair.optical} is in a folder of optical images, but its name says s1, which is SAR, and its "
                "partner's name says s2; swap the folders, or rename the images"
            )


def _composed(text: str) -> str:
    """The text in Unicode's form NFC. macOS spells accents as characters of their own (NFD)."""
    return unicodedata.normalize("NFC", text)


def _natural(pair: Pair) -> list[list[tuple[int, int, str]]]:
    """Sort key: by scene, and p2 before p10."""
    return [
        [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text)]
        for text in (pair.scene, pair.name)
    ]


def _matching(scenes: list[str], patterns: tuple[str, ...], key: str) -> tuple[str, ...]:
    patterns = tuple(map(_composed, patterns))
    for pattern in patterns:
        if not any(fnmatchcase(scene, pattern) for scene in scenes):
            first = ", ".join(scenes[:5]) + (", ..." if len(scenes) > 5 else "")
            raise InputError(f"{key}: {shown(pattern)} matches none of the {len(scenes)} scenes ({first})")
    if not patterns:
        raise InputError(f"{key} is empty; give at least one pattern of scene names")
    return tuple(scene for scene in scenes if any(fnmatchcase(scene, pattern) for pattern in patterns))
