"""Reads an image file: PNG, TIFF and similar through OpenCV, GeoTIFF through rasterio (extra `geo`)."""

import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sdnet.errors import InputError
from sdnet.files import open_regular
from sdnet.images.decode import most_bytes, refuse_incomplete, undeclared_no_data
from sdnet.images.formats import read_header
from sdnet.images.header import BadHeader, HeaderBytes, ImageHeader
from sdnet.images.tiff_header import is_tiff
from sdnet.registration.files.georeference import Georeference, read_geotiff
from sdnet.registration.images import Image, has_data, image_from_array

_GEO_KEYS = 34735  # the tag that makes a TIFF a GeoTIFF
_MOST_FIELDS = 4096
_MOST_PIXELS = 2**28  # 16,384 x 16,384: what one process registers in 4 GB


class _TooLarge(BadHeader):
    """An image that may be whole, but has too many pixels for one process."""


@dataclass(frozen=True)
class Source:
    """A file that was read.

    pixels: [H, W], or [H, W, C] in the order R, G, B, as stored. geo: None without a georeference.
    nodata: value of empty pixels. known: bool [H, W], which pixels have data. Both None if the file does not say,
    and has no usual value of empty pixels.
    """

    path: Path
    pixels: np.ndarray
    image: Image
    geo: Georeference | None
    nodata: float | None = None
    known: np.ndarray | None = None


def read_source(path: Path, crs: str | None = None) -> Source:
    """Read an image of uint8, uint16, int16, float32 or float64, grey or in colour.

    crs: a coordinate system, as WKT, to which a GeoTIFF is reprojected if it has another one.
    Raises InputError for a file that is missing, damaged, too small, too large or unsupported, and for a
    GeoTIFF where rasterio is not installed.
    """
    try:
        with open_regular(path) as file:
            header = read_header(file)
            _refuse_large(header)
            file.seek(0)
            if _is_geotiff(HeaderBytes(file)):
                pixels, valid, geo = read_geotiff(path, crs)
                known = None if geo.nodata is None and valid.all() else valid
                image = image_from_array(pixels, valid=known, name=str(path))
                return Source(path, pixels, image, geo, geo.nodata, known)
            if header.refusal:
                raise BadHeader(header.refusal)
            _refuse_large_file(os.fstat(file.fileno()).st_size)
            file.seek(0)
            pixels = _decode(file.read(), header)
    except _TooLarge as error:
        raise InputError(
            f"{path} {error}; cut it into parts, such as with gdal_translate -srcwin 0 0 8192 8192 {path} part.tif"
        ) from None
    except BadHeader as error:
        raise InputError(f"{path} {error}; give a PNG or TIFF image that is whole") from None
    except MemoryError:
        raise InputError(f"{path} does not fit into memory; cut it into parts") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); give an image") from None
    no_data = undeclared_no_data(pixels) if header.no_data is None else header.no_data
    known = None if no_data is None else has_data(pixels, no_data)
    image = image_from_array(pixels, valid=known, name=str(path))
    return Source(path, pixels, image, None, no_data, known)


def _refuse_large(header: ImageHeader) -> None:
    if header.pixels > _MOST_PIXELS:
        raise _TooLarge(f"announces {header.width} x {header.height} px, more than {_MOST_PIXELS} pixels")


def _refuse_large_file(size: int) -> None:
    """rasterio reads only the pixels of a GeoTIFF, but any other file is read as a whole."""
    most = most_bytes(_MOST_PIXELS)
    if size > most:
        raise BadHeader(f"is a file of {size} bytes, more than {most}")


def _is_geotiff(content: HeaderBytes) -> bool:
    """Whether the first page of a TIFF has geo keys."""
    if not is_tiff(content.head):
        return False
    order = "<" if content.head[:2] == b"II" else ">"
    big = content.unpack(order + "H", 2) == (43,)
    (start,) = content.unpack(order + ("Q" if big else "I"), 8 if big else 4)
    (count,) = content.unpack(order + ("Q" if big else "H"), start)
    first, size = (start + 8, 20) if big else (start + 2, 12)
    places = range(first, first + min(count, _MOST_FIELDS) * size, size)
    return any(content.unpack(order + "H", place) == (_GEO_KEYS,) for place in places)


def _decode(data: bytes, header: ImageHeader) -> np.ndarray:
    refuse_incomplete(data)
    content = np.frombuffer(data, np.uint8).copy()
    for offset, value in header.edits:
        content[offset : offset + len(value)] = np.frombuffer(value, np.uint8)
    try:
        pixels = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise header.not_decoded(len(data), error.err) from None
    if pixels is None:
        raise header.not_decoded(len(data))
    header.refuse_damaged_parts(data)
    return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[:, :, [2, 1, 0]])
