"""Images in the form that registration needs: grey, 8 bit, with a mask of the pixels that have data."""

from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np

from sdnet.errors import InputError
from sdnet.images.decode import NOT_A_MEASUREMENT, undeclared_no_data

LEAST_EDGE = 128
_EMPTY_PX = 5  # zeros count as empty only where they fill a square of this edge
_SAMPLE = 2_000_000  # pixels from which percentiles are taken


@dataclass(frozen=True)
class Image:
    """One image.

    grey: uint8 [H, W]. valid: bool [H, W], False where the image is empty. name: for messages.
    """

    grey: np.ndarray
    valid: np.ndarray
    name: str = field(default="image")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.grey.shape[0], self.grey.shape[1]

    @cached_property
    def halves(self) -> "Image":
        """The image at half the resolution; pixel (i, j) covers pixels 2 i, 2 i + 1 and 2 j, 2 j + 1."""
        rows, columns = self.shape[0] // 2 * 2, self.shape[1] // 2 * 2
        size = columns // 2, rows // 2
        grey = cv2.resize(self.grey[:rows, :columns], size, interpolation=cv2.INTER_AREA)
        valid = cv2.resize(self.valid[:rows, :columns].view(np.uint8), size, interpolation=cv2.INTER_AREA)
        return Image(grey, valid.astype(bool), self.name)

    def level(self, halvings: int) -> "Image":
        """The image after some halvings."""
        return self if halvings == 0 else self.halves.level(halvings - 1)


def image_from_array(pixels: np.ndarray, *, valid: np.ndarray | None = None, name: str = "image") -> Image:
    """Make an image of an array, 8 or 16 bit integers or floats, [H, W], or [H, W, 3] in the order R, G, B.

    Pixels that are not finite, beyond 1e30 or masked (numpy.ma) count as empty. Without a mask, so do squares of
    zeros of 5 px or more, and a usual value such as -9999 (see `undeclared_no_data`). Other depths than 8 bit
    are stretched as training data are: 1st percentile to 0, 99th to 255. For a large image the percentiles come
    from every n-th row and column.
    Either byte order is read. Raises InputError for another shape or type, an image below 128 px, or one
    without any data.
    """
    if not isinstance(pixels, np.ndarray):
        raise InputError(
            f"{name} is of type {type(pixels).__name__}; give a numpy array, grey [H, W] or colour [H, W, 3]"
        )
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        raise InputError(f"{name} has shape {pixels.shape}; give grey [H, W] or colour [H, W, 3]")
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if pixels.dtype not in (np.uint8, np.uint16, np.int16, np.float32, np.float64):
        raise InputError(
            f"{name} has pixels of {pixels.dtype}; give uint8, uint16, int16, float32 or float64"
        )
    if min(pixels.shape[:2]) < LEAST_EDGE:
        size = f"{pixels.shape[1]} x {pixels.shape[0]} px"
        raise InputError(f"{name} is {size}; give at least {LEAST_EDGE} x {LEAST_EDGE} px")
    if isinstance(pixels, np.ma.MaskedArray):
        pixels, valid = pixels.data, _unmasked(pixels, valid)
    grey = _grey(pixels)
    if valid is None:
        valid = _holds_data(grey)
        if (empty := undeclared_no_data(pixels)) is not None:
            valid &= has_data(pixels, empty)
    if grey.dtype.kind == "f" and not (known := np.abs(grey) < NOT_A_MEASUREMENT).all():
        # One NaN would make both percentiles NaN, and so the whole image black.
        grey, valid = np.where(known, grey, np.nan), valid & known
    if not valid.any():
        raise InputError(f"{name} is empty: it has no pixel with data; give another image")
    return Image(grey if grey.dtype == np.uint8 else _stretched(grey, valid), valid, name)


def has_data(pixels: np.ndarray, no_data: float | None) -> np.ndarray:
    """Which pixels of [H, W] or [H, W, C] have another value than `no_data` in any band: bool [H, W]."""
    other = np.isfinite(pixels) if no_data is None else (pixels != no_data) & np.isfinite(pixels)
    return other if other.ndim == 2 else other.any(axis=2)


def _unmasked(pixels: np.ndarray, valid: np.ndarray | None) -> np.ndarray | None:
    """Which pixels have data, also according to the mask of the array; as given if nothing is masked."""
    masked = np.ma.getmaskarray(pixels)
    masked = masked if masked.ndim == 2 else masked.any(axis=2)
    if not masked.any():
        return valid
    return ~masked if valid is None else valid & ~masked


def _grey(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] == 1:
        return pixels[:, :, 0]
    if pixels.dtype not in (np.uint8, np.uint16, np.float32):
        pixels = pixels.astype(np.float32)
    return cv2.cvtColor(np.ascontiguousarray(pixels[:, :, :3]), cv2.COLOR_RGB2GRAY)


def _holds_data(grey: np.ndarray) -> np.ndarray:
    empty = ((grey == 0) | ~np.isfinite(grey)).view(np.uint8)
    square = np.ones((_EMPTY_PX, _EMPTY_PX), np.uint8)
    return cv2.morphologyEx(empty, cv2.MORPH_OPEN, square, borderValue=1) == 0


def _stretched(grey: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Stretch to 8 bit in blocks of rows, to avoid a float copy of the whole image."""
    step = max(1, int(np.sqrt(grey.size / _SAMPLE)))
    sample = grey[::step, ::step][valid[::step, ::step]].astype(np.float64)
    low, high = np.percentile(sample if sample.size else grey[valid].astype(np.float64), [1, 99])
    stretched = np.empty(grey.shape, np.uint8)
    for first in range(0, len(grey), 512):
        block = np.nan_to_num(grey[first : first + 512].astype(np.float32), nan=low)
        shares = (block - low) / max(high - low, 1e-12)
        stretched[first : first + 512] = np.rint(255 * np.clip(shares, 0, 1))
    return stretched
