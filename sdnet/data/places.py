"""Where patches were cut: the scene, the pair of images, and the centre in it.

An `.npz` of patches stores them in two more arrays: `scenes`, the names, and `places`, int32 [N, 4]: scene,
tile, row and column of each optical patch.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from sdnet.data.store import extra_array
from sdnet.errors import InputError

APART_PX = 64  # windows whose centres are this far apart in rows or columns share no pixel
_SEASON = re.compile(r"ROIs?\d+_(?P<season>[A-Za-z]+)_.+")


@dataclass(frozen=True)
class Places:
    """The places of N patches of one modality.

    scenes: the names of all scenes. scene: int [N], index into `scenes`. tile: int [N], the pair of
    images, numbered over the whole data set. centre: int [N, 2], row and column in the tile.
    """

    scenes: tuple[str, ...]
    scene: np.ndarray
    tile: np.ndarray
    centre: np.ndarray

    def __post_init__(self) -> None:
        shapes = self.scene.shape, self.tile.shape, self.centre.shape
        if shapes != ((len(self),), (len(self),), (len(self), 2)):
            raise InputError(f"places have the shapes {shapes}; they must be [N], [N] and [N, 2]")
        unknown = self.scene[(self.scene < 0) | (self.scene >= len(self.scenes))]
        if unknown.size:
            raise InputError(f"places name scene {unknown[0]} of {len(self.scenes)}")

    def __len__(self) -> int:
        return len(self.scene)

    @classmethod
    def read(cls, path: Path, num_pairs: int) -> Self | None:
        """Read the places of an `.npz` of patches; None if it has none. Raises InputError for invalid ones."""
        scenes = extra_array(path, "scenes", "U", (None,))
        places = extra_array(path, "places", "i", (num_pairs, 4))
        if scenes is None or places is None:
            return None
        try:
            names = tuple(scenes.tolist())
        except (ValueError, SystemError):  # numbers that are no characters
            raise InputError(f"{path}: scenes holds damaged text; prepare the data again") from None
        try:
            return cls(names, places[:, 0], places[:, 1], places[:, 2:])
        except InputError as error:
            raise InputError(f"{path}: {error}; prepare the data again") from None

    def extras(self) -> dict[str, np.ndarray]:
        """As `store.write_patches` takes them."""
        places = np.column_stack([self.scene, self.tile, self.centre]).astype(np.int32)
        return {"scenes": np.array(self.scenes, np.str_), "places": places}

    def rows(self, rows: np.ndarray) -> Self:
        """The places of some patches."""
        return type(self)(self.scenes, self.scene[rows], self.tile[rows], self.centre[rows])

    @cached_property
    def members(self) -> tuple[np.ndarray, ...]:
        """The patches of each scene, ascending."""
        return tuple(np.flatnonzero(self.scene == scene) for scene in range(len(self.scenes)))

    def by_season(self) -> dict[str, np.ndarray]:
        """The scenes of each season, by its name; scenes without a name of SEN1-2's form are left out."""
        seasons: dict[str, list[int]] = {}
        for number, name in enumerate(self.scenes):
            match = _SEASON.fullmatch(name)
            if match:
                seasons.setdefault(match["season"], []).append(number)
        return {season: np.array(seasons[season]) for season in sorted(seasons)}

    def elsewhere(self, index: int) -> np.ndarray:
        """Patches of the scene of patch `index` that show other ground: from another tile, or without overlap.

        Where tiles of a scene overlap, a patch of another tile may still show the same ground.
        """
        members = self.members[self.scene[index]]
        off = np.abs(self.centre[members] - self.centre[index]).max(axis=1)
        return members[(self.tile[members] != self.tile[index]) | (off >= APART_PX)]

    def rivals(self) -> Iterator[np.ndarray]:
        """`elsewhere` of each patch in turn."""
        return (self.elsewhere(index) for index in range(len(self)))
