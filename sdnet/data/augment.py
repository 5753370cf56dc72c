"""Random views of training pairs, made by the thread that gathers batches.

The view of a sample depends only on (seed, step, position in the global batch). So a resumed run, or
one with another number of ranks, trains on the same views. Both patches of a pair are rotated,
mirrored and scaled in the same way; only the SAR patch is also shifted.

Pairs are stored as uint8 [E, 2E], optical left and SAR right, E >= 64; views are [64, 128] around
the middle of each side. Where a view reaches beyond the stored patch, its border is mirrored.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sdnet.config import FEWEST_FOR_STATISTICS, Recipe
from sdnet.data.store import PatchFile
from sdnet.errors import InputError
from sdnet.recipes import edge_needed

VIEW = 64
_GREY_LEVELS = 256
# The random numbers of each sample, in this order. Add a new one at the end, or all views change.
_DRAWS = ("turn", "angle", "scale", "move_row", "move_column", "gamma_optical", "gamma_sar")
_MIDDLE = (VIEW - 1) / 2


@dataclass(frozen=True, slots=True)
class Where:
    """A slice of a step: the global step, and the position of its first sample in the global batch."""

    step: int
    first: int


def changes_patches(recipe: Recipe) -> bool:
    """Whether a recipe changes the middle of the stored patches before it trains on them."""
    return recipe.flips or recipe.align_scenes or bool(
        recipe.rotation_deg or recipe.scale or recipe.jitter_px or recipe.gamma
    )  # fmt: skip


def check_edge(recipe: Recipe, edge: int, source: object) -> None:
    """Raise InputError if views need larger patches than are stored. The message begins with `source`."""
    needed = edge_needed(recipe)
    if edge < needed:
        raise InputError(
            f"{source} holds patches of {edge} px and the recipe needs {needed}; prepare them again for "
            "this recipe, or set rotation_deg, scale and jitter_px to 0"
        )


def check_patches(recipe: Recipe, patches: PatchFile) -> None:
    """Raise InputError if the training patches lack what a recipe needs: size, shifts of scenes, scenes, number."""
    check_edge(recipe, patches.images.shape[1], patches.path)
    if recipe.align_scenes and patches.shifts is None:
        raise InputError(
            f"{patches.path} holds no shifts of scenes, and the recipe has align_scenes; prepare it "
            "again for this recipe, or set align_scenes to false"
        )
    if recipe.align_scenes and patches.shifts is not None:
        _check_shifts(patches.path, patches.shifts)
    if recipe.scene_run > 1 and patches.ground is None:
        raise InputError(
            f"{patches.path} does not say which scene each patch shows, and the recipe has scene_run; "
            "prepare it again, or set scene_run to 1"
        )
    if recipe.measured_statistics and len(patches) < FEWEST_FOR_STATISTICS:
        raise InputError(
            f"{patches.path} holds {len(patches)} pairs, too few to measure statistics; give at least "
            f"{FEWEST_FOR_STATISTICS}, or set measured_statistics to false"
        )


def _check_shifts(path: Path, shifts: np.ndarray) -> None:
    # A larger shift moves the view off the patch. Often the unit is wrong, as metres.
    far = shifts[(shifts < -VIEW) | (shifts > VIEW)]
    if far.size:
        raise InputError(
            f"{path} has a shift of {far[0]} px; it must be from -{VIEW} to {VIEW}: correct `shifts`, or set "
            "align_scenes to false"
        )


def uniform(seed: int, step: int, positions: np.ndarray, draw: int) -> np.ndarray:
    """Random float64 in [0, 1) for each position: a hash of the arguments, without state."""
    key = _mix(np.uint64(seed) + (np.uint64(step) << np.uint64(32)))
    words = _mix(key + positions.astype(np.uint64) * np.uint64(len(_DRAWS)) + np.uint64(draw))
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


class Views:
    """Cuts the views of a recipe from training patches. Errors: as `check_patches`."""

    def __init__(self, recipe: Recipe, patches: PatchFile):
        check_patches(recipe, patches)
        self._recipe, self._images = recipe, patches.images
        self._shifts = patches.shifts if recipe.align_scenes else None
        cv2.setNumThreads(1)  # the prefetching thread must not take the CPUs of training

    def fill(self, where: Where, indices: np.ndarray, out: np.ndarray) -> None:
        """Write the views of the samples `indices` to `out`, uint8 [B, 64, 128]."""
        positions = where.first + np.arange(len(indices))
        drawn = {
            name: uniform(self._recipe.seed, where.step, positions, number)
            for number, name in enumerate(_DRAWS)
        }
        matrices = self._matrices(drawn)
        moves = self._moves(drawn, indices)
        edge = self._images.shape[1]
        for row, index in enumerate(indices):
            pair, matrix = self._images[index], matrices[row]
            _warp(pair[:, :edge], matrix, np.zeros(2), out[row, :, :VIEW])
            _warp(pair[:, edge:], matrix, moves[row], out[row, :, VIEW:])
        if self._recipe.gamma:
            self._change_gamma(drawn, out)

    def _matrices(self, drawn: dict[str, np.ndarray]) -> np.ndarray:
        """Map an offset in the view to one in the stored patch, both (x, y): float64 [B, 2, 2]."""
        recipe = self._recipe
        angle = np.deg2rad(recipe.rotation_deg) * (2 * drawn["angle"] - 1)
        factor = (1 + recipe.scale) ** (2 * drawn["scale"] - 1)
        cos, sin = factor * np.cos(angle), factor * np.sin(angle)
        free = np.moveaxis(np.array([[cos, -sin], [sin, cos]]), -1, 0)
        if not recipe.flips:
            return free
        return free @ TURNS[(8 * drawn["turn"]).astype(np.int64)]

    def _moves(self, drawn: dict[str, np.ndarray], indices: np.ndarray) -> np.ndarray:
        """Offset of the SAR view's middle from the middle of its stored patch, (x, y): float64 [B, 2]."""
        jitter = np.stack([drawn["move_column"], drawn["move_row"]], axis=1)
        moves = self._recipe.jitter_px * (2 * jitter - 1)
        return moves if self._shifts is None else moves + self._shifts[indices][:, ::-1]

    def _change_gamma(self, drawn: dict[str, np.ndarray], out: np.ndarray) -> None:
        grey = np.arange(_GREY_LEVELS) / (_GREY_LEVELS - 1)
        for side, name in ((out[:, :, :VIEW], "gamma_optical"), (out[:, :, VIEW:], "gamma_sar")):
            powers = np.exp(self._recipe.gamma * (2 * drawn[name] - 1))
            tables = np.rint((_GREY_LEVELS - 1) * grey ** powers[:, None]).astype(np.uint8)
            for row, table in enumerate(tables):
                side[row] = table[side[row]]


def middle(pairs: np.ndarray) -> np.ndarray:
    """The middle 64 px of each side of stored pairs: uint8 [N, 64, 128]."""
    edge = pairs.shape[1]
    if edge == VIEW:
        return pairs
    begin = (edge - VIEW) // 2
    inside = slice(begin, begin + VIEW)
    return np.concatenate([pairs[:, inside, :edge][:, :, inside], pairs[:, inside, edge:][:, :, inside]], 2)


def _turns() -> np.ndarray:
    """The 8 flips and right-angle rotations as matrices on (x, y): float64 [8, 2, 2]."""
    quarter, mirror = np.array([[0.0, -1.0], [1.0, 0.0]]), np.diag([-1.0, 1.0])
    rotations = [np.linalg.matrix_power(quarter, number) for number in range(4)]
    return np.array([*rotations, *(rotation @ mirror for rotation in rotations)])


TURNS = _turns()


def _warp(side: np.ndarray, matrix: np.ndarray, move: np.ndarray, out: np.ndarray) -> None:
    middle_xy = (np.array(side.shape[::-1]) - 1) / 2 + move
    offset = middle_xy - matrix @ (_MIDDLE, _MIDDLE)
    out[:] = cv2.warpAffine(
        side,
        np.column_stack([matrix, offset]),
        (VIEW, VIEW),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )


def _mix(x: np.ndarray | np.uint64) -> np.ndarray:
    """Scramble unsigned 64 bit words: the finaliser of splitmix64 (Sebastiano Vigna, public domain)."""
    with np.errstate(over="ignore"):
        x = np.asarray(x, np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
