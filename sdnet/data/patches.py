"""From a pair of images to patches: the same windows of both, around SIFT keypoints."""

import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sdnet.config import PatchConfig
from sdnet.data.sen12 import Pair

_PNG = b"\x89PNG\r\n\x1a\n"


class BadImage(Exception):
    """An image that cannot be used: `path` and `reason`. Example: a download that broke off."""

    def __init__(self, path: Path, reason: str):
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def read_grey(path: Path) -> np.ndarray:
    """Decode an image to grey uint8 [H, W]; RGB by the weights of ITU-R BT.601.

    Raises BadImage for a file that is missing, truncated or no image. OpenCV fills what a
    truncated file lacks and says nothing, so the file's end is looked at first.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
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
    centres = choose_centres(_keypoints(optical, sar, config), optical.shape, config)
    windows = [
        np.hstack([image[row - half : row + half, column - half : column + half] for image in (optical, sar)])
        for row, column in centres
    ]
    return np.stack(windows) if windows else np.empty((0, config.size, 2 * config.size), np.uint8)


def choose_centres(
    keypoints: Sequence[tuple[float, float, float]], shape: tuple[int, ...], config: PatchConfig
) -> list[tuple[int, int]]:
    """(row, column) of the windows' centres, from keypoints' (response, x, y); ties go by row, then column."""
    half, (rows, columns) = config.size // 2, shape[:2]
    ordered = sorted((-response, round(y), round(x)) for response, x, y in keypoints)
    chosen: list[tuple[int, int]] = []
    for _, row, column in ordered:
        inside = half <= row <= rows - half and half <= column <= columns - half
        if inside and all(
            (row - r) ** 2 + (column - c) ** 2 >= config.min_distance_px**2 and (row, column) != (r, c)
            for r, c in chosen
        ):
            chosen.append((row, column))
            if len(chosen) == config.per_pair:
                break
    return chosen


def _keypoints(optical: np.ndarray, sar: np.ndarray, config: PatchConfig) -> list[tuple[float, float, float]]:
    images = {"optical": (optical,), "sar": (sar,), "both": (optical, sar)}[config.detect_on]
    return [(point.response, *point.pt) for image in images for point in _sift().detect(image, None)]


@lru_cache(maxsize=1)
def _sift() -> Any:
    cv2.setNumThreads(1)  # shards are what runs in parallel; and one thread always gives one order
    return cv2.SIFT_create()


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
