"""Image pairs on disk, a SEN1-2 tree or two folders `s1/` (SAR) and `s2/` (optical); and their split.

SEN1-2 lays out `<ROI>_<season>/s1_<scene>/<ROI>_<season>_s1_<scene>_p<k>.png` for SAR and the
same with `s2` for optical. A scene is named `<ROI>_<season>_<scene>`. In flat folders the two
files have equal names, up to an `s1` that is `s2` in the other; a name of SEN1-2's form has its
scene, any other file is of the scene named by what stands before its last `_` (or its stem).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from sdnet.config import SplitConfig
from sdnet.errors import InputError

SUFFIXES = frozenset({".png", ".tif", ".tiff", ".jpg", ".jpeg"})
_TEST_SCENES = 2  # the fewest
_NAME = re.compile(r"(?P<roi>.+)_(?P<sensor>s[12])_(?P<scene>[^_]+)_(?P<patch>p\d+)")


@dataclass(frozen=True, slots=True, order=True)
class Pair:
    """One place seen by both sensors. name: unique in the listing, the file's stem without its sensor."""

    scene: str
    name: str
    optical: Path
    sar: Path


@dataclass(frozen=True, slots=True)
class Listing:
    """What a folder holds: pairs in natural order of their names, and images whose partner is missing."""

    pairs: tuple[Pair, ...]
    orphans: tuple[Path, ...]


def find_pairs(root: Path) -> Listing:
    """List the pairs below `root`; nothing is opened, hidden files do not count.

    Raises InputError when there are none, or when two images claim one place in a pair.
    """
    if not root.is_dir():
        raise InputError(f"images {root} is not a folder; give a SEN1-2 tree, or a folder with s1/ and s2/")
    optical: dict[tuple[str, str], Path] = {}
    sar: dict[tuple[str, str], Path] = {}
    for folder, sensor in _sensor_folders(root):
        images = sar if sensor == "s1" else optical
        for path in folder.iterdir():
            if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
                other = images.setdefault(_scene_and_name(path), path)
                if other != path:
                    raise InputError(
                        f"{min(path, other)} and {max(path, other)} have one name; rename or remove one"
                    )
    pairs = [Pair(*key, optical[key], sar[key]) for key in optical.keys() & sar.keys()]
    if not pairs:
        raise InputError(
            f"images {root} holds no pair ({len(optical)} optical, {len(sar)} SAR images); "
            "SAR belongs in s1_<scene>/ and optical in s2_<scene>/, or in s1/ and s2/"
        )
    orphans = [path for key, path in (optical | sar).items() if (key in optical) != (key in sar)]
    return Listing(tuple(sorted(pairs, key=_natural)), tuple(sorted(orphans)))


def split_scenes(scenes: Iterable[str], split: SplitConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Training and test scenes, disjoint and each sorted.

    By patterns, or by a seeded draw of `split.train` of all scenes. Either leaves two or more to test,
    because the non-matches of a scene come from another one.
    Raises InputError for too few scenes, a pattern that matches none, or a scene on both sides.
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
            f"the images are of {len(known)} scene(s) ({', '.join(known)}); a split by scene needs at "
            "least 3: one to train and two to test, since non-matches come from another scene"
        )
    order = np.random.Generator(np.random.PCG64(split.seed)).permutation(len(known))
    count = min(max(round(split.train * len(known)), 1), len(known) - _TEST_SCENES)
    drawn = {known[index] for index in order[:count]}
    return tuple(sorted(drawn)), tuple(scene for scene in known if scene not in drawn)


def _sensor_folders(root: Path) -> Iterable[tuple[Path, str]]:
    for sensor in ("s1", "s2"):
        for folder in (root / sensor, *root.glob(f"*/{sensor}_*")):
            if folder.is_dir():
                yield folder, sensor


def _scene_and_name(path: Path) -> tuple[str, str]:
    match = _NAME.fullmatch(path.stem)
    if match:
        scene = f"{match['roi']}_{match['scene']}"
        return scene, f"{scene}_{match['patch']}"
    name = re.sub(r"(?<![0-9A-Za-z])s[12](?![0-9A-Za-z])", "s", path.stem)
    return name.rpartition("_")[0] or name, name


def _natural(pair: Pair) -> list[list[tuple[int, int, str]]]:
    """Scenes stand together, and p2 comes before p10."""
    return [
        [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", text)]
        for text in (pair.scene, pair.name)
    ]


def _matching(scenes: list[str], patterns: tuple[str, ...], key: str) -> tuple[str, ...]:
    for pattern in patterns:
        if not any(fnmatchcase(scene, pattern) for scene in scenes):
            shown = ", ".join(scenes[:5])
            raise InputError(f"{key}: {pattern!r} matches none of the {len(scenes)} scenes ({shown}, ...)")
    if not patterns:
        raise InputError(f"{key} is empty; give at least one pattern of scene names")
    return tuple(scene for scene in scenes if any(fnmatchcase(scene, pattern) for pattern in patterns))
