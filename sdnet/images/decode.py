"""Decodes images to 8-bit grey, the same bytes on every host, or refuses them with a reason.

How each format and depth is mapped is documented in docs/data.md.
"""

import errno
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

from sdnet.files import open_regular
from sdnet.images.formats import read_header
from sdnet.images.header import BadHeader, ImageHeader

_STORAGE_IS_AWAY = frozenset({errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN})
_TEXT_PNM = (b"P1", b"P2", b"P3")
_PNG = b"\x89PNG\r\n\x1a\n"
# A larger absolute value marks missing data, such as the lowest float32, which GDAL writes.
NOT_A_MEASUREMENT = 1e30
# Refuses sparse files, which take gigabytes of memory but no disk. A file also has overviews and tags.
_MOST_BYTES_OF_A_PIXEL, _MOST_OTHER_BYTES = 32, 64 << 20
# Values that programs write for missing data, and that no sensor measures. GDAL's -3.4e38 is beyond the limit above.
_SENTINELS = (-9999, -99999, -32767, -32768, -(2**31))
_VISIBLE_SHARE = 0.001
# Fewer show that a value which is no measurement took part in the stretch.
FEWEST_LEVELS = 16
_TINY = np.finfo(np.float64).tiny
_GREY = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601


class BadImage(Exception):
    """An image that cannot be used: `path` and `reason`. Example: a truncated download."""

    def __init__(self, path: Path, reason: str):
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def read_pair(optical_path: Path, sar_path: Path, max_pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Both images of a pair, grey uint8 of one shape.

    Raises BadImage when they differ in size, or when both are the same image: it would match itself.
    """
    optical, sar = read_grey(optical_path, max_pixels), read_grey(sar_path, max_pixels)
    if optical.shape != sar.shape:
        raise BadImage(sar_path, f"is {_size(sar)}, its optical partner {_size(optical)}")
    if np.array_equal(optical, sar) and sar.min() != sar.max():
        raise BadImage(sar_path, "is the same image as its optical partner")
    return optical, sar


def read_grey(path: Path, max_pixels: int) -> np.ndarray:
    """Decode an image to grey uint8 [H, W], as it is stored: orientation tags and alpha are ignored.

    Up to 8 bits: grey as decoded; colours are weighted as in ITU-R BT.601 and rounded as the format's decoder
    does. Deeper: see `stretch`.

    Raises BadImage for a file that is missing, truncated, larger than `max_pixels` or unsupported.
    Raises OSError when the storage is unavailable, which says nothing about the image.
    """
    try:
        with open_regular(path) as file:  # a plain open of a FIFO would hang
            header = read_header(file)
            _refuse(header, os.fstat(file.fileno()).st_size, max_pixels)
            file.seek(0)
            data = file.read()
        if data.startswith(_TEXT_PNM):
            data += b"\n"  # OpenCV cannot decode one that ends right behind its last number
        refuse_incomplete(data)
        return _decode(data, header)
    except BadHeader as error:
        raise BadImage(path, str(error)) from None
    except MemoryError:
        raise BadImage(path, "does not fit into memory; lower data.max_pixels") from None
    except OSError as error:
        if error.errno in _STORAGE_IS_AWAY:
            raise
        raise BadImage(path, f"cannot be read ({error.strerror or error})") from None


def stretch(image: np.ndarray, no_data: float | None = None) -> np.ndarray:
    """Map an image of any depth to uint8 [H, W] by its own values: 1st percentile to 0, 99th to 255.

    image: [H, W], or [H, W, 3 or 4] in OpenCV's order blue, green, red (, alpha). Pixels that are not finite,
    beyond 1e30 or equal to `no_data` (None: see `undeclared_no_data`) become 0 and are excluded. Percentiles
    are values of the image, not interpolated, and all arithmetic is float64, so every host gets the same bytes.
    If both percentiles are equal, the lowest and the highest value are used instead.
    """
    no_data = undeclared_no_data(image) if no_data is None else no_data
    bands = [image] if image.ndim == 2 else [image[:, :, band] for band in (2, 1, 0)]
    known = np.logical_and.reduce([_measured(band, no_data) for band in bands])
    with np.errstate(all="ignore"):  # excluded pixels may overflow
        weights = (1.0,) if len(bands) == 1 else _GREY
        grey = np.zeros(image.shape[:2], np.float64)
        for weight, band in zip(weights, bands, strict=True):
            grey += weight * band.astype(np.float64)
    values = grey[known]
    if not values.size:
        return np.zeros(image.shape[:2], np.uint8)
    one_percent = (values.size - 1) // 100
    ends = (one_percent, values.size - 1 - one_percent)
    low, high = np.partition(values, ends)[list(ends)]
    if low == high:
        low, high = values.min(), values.max()
    shares = np.clip((np.where(known, grey, low) - low) / max(high - low, _TINY), 0, 1)
    return np.where(known, np.rint(shares * 255), 0).astype(np.uint8)


def levels_if_few(path: Path, grey: np.ndarray) -> int | None:
    """How many grey levels the stretch left in an image, if it is not constant and has less than `FEWEST_LEVELS`.

    grey: what `read_grey` made of `path`. None also for an image that is not stretched, or that has just changed.
    """
    levels = int(np.count_nonzero(cv2.calcHist([grey], [0], None, [256], [0, 256])))
    if not 1 < levels < FEWEST_LEVELS:
        return None
    try:
        with open_regular(path) as file:
            return levels if read_header(file).bits > 8 else None
    except (OSError, BadHeader):
        return None


def undeclared_no_data(pixels: np.ndarray) -> float | None:
    """The value of empty pixels in an image that does not declare one, or None.

    It is the lowest value of a float or signed image, a usual one such as -9999, and fills 0.1 % of it or more.
    pixels: an array of any shape.
    """
    if pixels.dtype.kind not in "if":
        return None
    enough = max(_VISIBLE_SHARE * pixels.size, 1)
    with np.errstate(all="ignore"):  # signalling NaN
        for mark in _SENTINELS:
            lower = (pixels < mark) & (pixels > -NOT_A_MEASUREMENT)
            if np.count_nonzero(pixels == mark) >= enough and not lower.any():
                return float(mark)
    return None


def _measured(band: np.ndarray, no_data: float | None) -> np.ndarray:
    """Which samples are measurements: bool [H, W]."""
    with np.errstate(all="ignore"):  # signalling NaN, or no_data beyond float32
        values = band.astype(np.float64)
        as_stored = np.float32 if band.dtype == np.float32 else np.float64
        marked = None if no_data is None else float(as_stored(no_data))
    measured: np.ndarray = np.isfinite(values) & (np.abs(values) < NOT_A_MEASUREMENT)
    return measured if marked is None else measured & (values != marked)


def most_bytes(max_pixels: int) -> int:
    """The largest file that is read. A larger one is not an image of so few pixels, but often a sparse file."""
    return max_pixels * _MOST_BYTES_OF_A_PIXEL + _MOST_OTHER_BYTES


def _refuse(header: ImageHeader, size: int, max_pixels: int) -> None:
    most = most_bytes(max_pixels)
    if size > most:
        raise BadHeader(f"is a file of {size} bytes, more than {most}; raise data.max_pixels ({max_pixels})")
    if header.pixels > max_pixels:
        raise BadHeader(
            f"announces {header.width} x {header.height} px, more than data.max_pixels ({max_pixels})"
        )
    if header.refusal:
        raise BadHeader(header.refusal)


def _decode(data: bytes, header: ImageHeader) -> np.ndarray:
    """The pixels of a whole file. Raises BadHeader when OpenCV cannot decode them."""
    content = np.frombuffer(data, np.uint8)
    if header.edits:
        content = content.copy()
        for offset, value in header.edits:
            content[offset : offset + len(value)] = np.frombuffer(value, np.uint8)
    deep = header.bits > 8
    cv2.setLogLevel(0)  # OpenCV warns of the tags of each GeoTIFF; our reason says what is wrong
    # IMREAD_UNCHANGED ignores orientation by itself.
    flags = cv2.IMREAD_UNCHANGED if deep else cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(content, flags)
    except cv2.error as error:
        raise header.not_decoded(len(data), error.err) from None
    if image is None:
        raise header.not_decoded(len(data))
    if image.shape[:2] != (header.height, header.width):
        raise BadHeader(f"announces {header.width} x {header.height} px and decodes to {_size(image)}")
    header.refuse_damaged_parts(data)
    return stretch(image, header.no_data) if deep else image


def refuse_incomplete(data: bytes) -> None:
    """Raise BadHeader for a truncated PNG or JPEG: OpenCV silently fills in what is missing."""
    if data.startswith(_PNG):
        reason = _incomplete_png(data)
    elif data.startswith(b"\xff\xd8"):
        reason = _incomplete_jpeg(data)
    else:
        reason = ""  # the other decoders fail, and `not_decoded` gives the reason
    if reason:
        raise BadHeader(reason)


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
        if kind == b"acTL":  # OpenCV 4.11 mixes up the bytes of 16-bit ones
            return "is an animated PNG; write a plain one"
        if kind == b"IEND":
            return ""
        position = end
    return "is a truncated PNG (no end chunk)"


def _incomplete_jpeg(data: bytes) -> str:
    """Why a JPEG is not whole, or empty.

    The segments are followed to the end marker, because other bytes may follow it, and a thumbnail in the
    header has an end marker of its own.
    """
    position, scans = 2, 0
    while (position := data.find(b"\xff", position)) >= 0 and position + 1 < len(data):
        marker = data[position + 1]
        if marker == 0xD9 and scans:
            return ""
        if marker == 0xFF:
            position += 1  # a fill byte
        elif marker == 0 or 0xD0 <= marker <= 0xD7 or marker == 0x01:
            position += 2  # inside a scan: a stuffed 0xFF, or a restart
        elif position + 4 > len(data):
            break
        else:
            scans += marker == 0xDA
            position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    return "is a truncated JPEG (no end marker)"


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]} x {image.shape[0]} px"
