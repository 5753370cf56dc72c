"""From a pair of images to patches: the same windows of both, around SIFT keypoints."""

import ctypes
import errno
import struct
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sdnet.config import PatchConfig
from sdnet.data.sen12 import Pair

_STORAGE_IS_AWAY = frozenset({errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN})
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
# Strong keypoints come first anyway, so they are looked for first: on real tiles, of which one in twelve
# needs the second value too, OpenCV's default, it takes 6.2 instead of 8.7 ms. The first `per_pair` were the
# same either way on all 464 real tiles that we have and on 240 synthetic pairs.
_LEAST_CONTRAST = (0.12, 0.04)
_PNG = b"\x89PNG\r\n\x1a\n"


class BadImage(Exception):
    """An image that cannot be used: `path` and `reason`. Example: a download that broke off."""

    def __init__(self, path: Path, reason: str):
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def read_grey(path: Path) -> np.ndarray:
    """Decode an image to grey uint8 [H, W]; RGB by the weights of ITU-R BT.601,
    rounded as the decoder of the format does.

    Raises BadImage for a file that is missing, truncated or no image. OpenCV fills what a
    truncated file lacks and says nothing, so the file's end is looked at first. Raises OSError
    when it is the storage that is away: that says nothing about the image.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        if error.errno in _STORAGE_IS_AWAY:
            raise
        raise BadImage(path, f"cannot be read ({error.strerror})") from None
    reason = _incomplete(data)
    if reason:
        raise BadImage(path, reason)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise BadImage(path, "is not an image that OpenCV decodes")
    return image


def read_pair(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Both images of a pair, grey uint8 of one shape; raises BadImage when they differ in size."""
    optical, sar = read_grey(pair.optical), read_grey(pair.sar)
    if optical.shape != sar.shape:
        raise BadImage(pair.sar, f"is {_size(sar)}, its optical partner {_size(optical)}")
    return optical, sar


def cut_patches(optical: np.ndarray, sar: np.ndarray, config: PatchConfig) -> np.ndarray:
    """Cut the same windows from both images: uint8 [n, 64, 128], optical left, n <= per_pair.

    Keypoints come strongest first, no two nearer than `min_distance_px`, windows fully inside.
    An image without texture, or smaller than a window, gives none.
    """
    half = config.size // 2
    for least_contrast in _LEAST_CONTRAST:
        keypoints = _keypoints(optical, sar, config, least_contrast)
        centres = choose_centres(keypoints, optical.shape, config)
        if len(centres) == config.per_pair:
            break
    windows = [
        np.hstack([image[row - half : row + half, column - half : column + half] for image in (optical, sar)])
        for row, column in centres
    ]
    return np.stack(windows) if windows else np.empty((0, config.size, 2 * config.size), np.uint8)


def choose_centres(
    keypoints: np.ndarray, shape: tuple[int, ...], config: PatchConfig
) -> list[tuple[int, int]]:
    """(row, column) of the windows' centres; equal responses go by row, then column.

    keypoints: float32 [n, 3], of each its response, x and y. shape: of the image.
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
        ):
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
def _sift(least_contrast: float) -> Any:
    cv2.setNumThreads(1)  # shards are what runs in parallel; and one thread always gives one order
    _keep_freed_memory()
    return cv2.SIFT_create(contrastThreshold=least_contrast)  # type: ignore[attr-defined]


def _keep_freed_memory() -> None:
    """Let glibc reuse what SIFT frees instead of giving it back to the system after each image.

    SIFT takes and frees some 15 MB an image (256 x 256), which otherwise means 3,700 page faults
    and a quarter of the time. Values: the largest threshold that mallopt(3) allows; twice that.
    Does nothing where there is no glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 64 << 20)


def _incomplete(data: bytes) -> str:
    """Why the bytes of an image are not all there, or empty."""
    if not data:
        return "is empty"
    if data.startswith(_PNG):
        return _incomplete_png(data)
    if data.startswith(b"\xff\xd8") and b"\xff\xd9" not in data[-64:]:
        return "is a truncated JPEG (no end marker)"
    return ""


def _incomplete_png(data: bytes) -> str:
    position = len(_PNG)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        body = memoryview(data)[position + 4 : end - 4]
        if zlib.crc32(body) != struct.unpack_from(">I", data, end - 4)[0]:
            return f"is a damaged PNG (checksum of its {kind.decode('latin-1')} chunk)"
        if kind == b"IEND":
            return ""
        position = end
    return "is a truncated PNG (no end chunk)"


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]} x {image.shape[0]} px"
