"""Cuts patches from a pair of images: the same windows of both, around SIFT keypoints."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from sdnet.config import PatchConfig

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
# Strong keypoints are used first, so they are searched first. One real tile in twelve also needs the second
# value, OpenCV's default. On real tiles the search takes 6.2 instead of 8.7 ms. The first `per_pair` keypoints
# were the same with and without this, on all 464 real tiles that we have and on 240 synthetic pairs.
_LEAST_CONTRAST = (0.12, 0.04)


@dataclass(frozen=True, slots=True)
class Cut:
    """The patches of one pair.

    patches: uint8 [n, E, 2E], optical left, E = `stored_size`. constant: windows left out as constant.
    centres: int32 [n, 2], row and column of each in its images.
    """

    patches: np.ndarray
    constant: int
    centres: np.ndarray

    @classmethod
    def nothing(cls, config: PatchConfig, constant: int = 0) -> "Cut":
        """The cut of a pair that gives no patch."""
        edge = config.stored_size
        return cls(np.empty((0, edge, 2 * edge), np.uint8), constant, np.empty((0, 2), np.int32))


def cut_patches(optical: np.ndarray, sar: np.ndarray, config: PatchConfig) -> Cut:
    """Cut the same windows from both images, at most `per_pair`.

    The strongest keypoints are used first, at least `min_distance_px` apart, with windows fully inside. A
    window that has one value only in either image (the black edge of a swath, open water) is left out, and the
    next keypoint takes its place. An image without texture gives no patch.
    """
    half, left_out = config.size // 2, 0

    def has_texture(row: int, column: int) -> bool:
        nonlocal left_out
        window = np.s_[row - half : row + half, column - half : column + half]
        textured = not (is_constant(optical[window]) or is_constant(sar[window]))
        left_out += not textured
        return textured

    for least_contrast in _LEAST_CONTRAST:
        keypoints = _keypoints(optical, sar, config, least_contrast)
        left_out = 0
        centres = choose_centres(keypoints, optical.shape, config, has_texture)
        if len(centres) == config.per_pair:
            break
    if not centres:
        return Cut.nothing(config, left_out)
    return Cut(_windows(optical, sar, centres, config), left_out, np.array(centres, np.int32))


def _windows(
    optical: np.ndarray, sar: np.ndarray, centres: list[tuple[int, int]], config: PatchConfig
) -> np.ndarray:
    """Windows of `stored_size` around the centres, side by side: uint8 [n, E, 2E]."""
    edge, beyond = config.stored_size, (config.stored_size - config.size) // 2
    if beyond:
        border = (beyond, beyond, beyond, beyond)
        optical, sar = (
            cv2.copyMakeBorder(image, *border, cv2.BORDER_REFLECT_101) for image in (optical, sar)
        )
    # The border moves a centre by `beyond`; its window begins half a stored edge before it.
    begin = beyond - edge // 2
    return np.stack(
        [
            np.hstack([image[row + begin :, column + begin :][:edge, :edge] for image in (optical, sar)])
            for row, column in centres
        ]
    )


def is_constant(image: np.ndarray) -> bool:
    """Whether all pixels have one value."""
    return bool(image.min() == image.max())


def choose_centres(
    keypoints: np.ndarray,
    shape: tuple[int, ...],
    config: PatchConfig,
    is_usable: Callable[[int, int], bool] = lambda row, column: True,
) -> list[tuple[int, int]]:
    """Choose the (row, column) of the windows' centres; equal responses are ordered by row, then column.

    keypoints: float32 [n, 3]: response, x and y.
    shape: of the image.
    is_usable: whether the window around (row, column) may be used.
    """
    half, (rows, columns) = config.size // 2, shape[:2]
    x, y = np.rint(keypoints[:, 1:].T).astype(np.int64)
    inside = (half <= y) & (y <= rows - half) & (half <= x) & (x <= columns - half)
    strongest_first = np.lexsort((x, y, -keypoints[:, 0]))
    candidates = strongest_first[inside[strongest_first]]
    chosen: list[tuple[int, int]] = []
    for row, column in zip(y[candidates].tolist(), x[candidates].tolist(), strict=True):
        if all(
            (row - r) ** 2 + (column - c) ** 2 >= config.min_distance_px**2 and (row, column) != (r, c)
            for r, c in chosen
        ) and is_usable(row, column):
            chosen.append((row, column))
            if len(chosen) == config.per_pair:
                break
    return chosen


def _keypoints(
    optical: np.ndarray, sar: np.ndarray, config: PatchConfig, least_contrast: float
) -> np.ndarray:
    """Response, x and y of each SIFT keypoint: float32 [n, 3]."""
    images = {"optical": (optical,), "sar": (sar,), "both": (optical, sar)}[config.detect_on]
    points = [point for image in images for point in _sift(least_contrast).detect(image, None)]
    found = np.empty((len(points), 3), np.float32)
    found[:, 0] = [point.response for point in points]
    found[:, 1:] = cv2.KeyPoint.convert(points) if points else 0
    return found


@lru_cache(maxsize=len(_LEAST_CONTRAST))
def _sift(least_contrast: float) -> "cv2.SIFT":
    cv2.setNumThreads(1)  # shards run in parallel already, and one thread gives a fixed order
    _keep_freed_memory()
    return cv2.SIFT_create(contrastThreshold=least_contrast)  # type: ignore[attr-defined]


def _keep_freed_memory() -> None:
    """Let glibc reuse the memory that SIFT frees, instead of returning it to the system after each image.

    SIFT allocates and frees about 15 MB for an image of 256 x 256. Returning that costs 3,700 page faults and a
    quarter of the time. The first threshold is the largest that mallopt(3) allows, the second is twice that.
    Without glibc this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 64 << 20)
