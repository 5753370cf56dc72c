"""Builds image files byte by byte: of any depth and number of bands, also with false headers."""

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image as Pillow

LIMIT = 1 << 20
RAMP = np.arange(20 * 30).reshape(20, 30)
GREY = (RAMP % 251).astype(np.uint8)
COLOURS = np.dstack([GREY, GREY // 2, 255 - GREY])
_KINDS = {"u": 1, "i": 2, "f": 3, "c": 6}
_CODES = {2: "s", 3: "H", 4: "I"}


def tiff(
    image: np.ndarray,
    *,
    order: str = "<",
    photometric: int | None = None,
    orientation: int = 0,
    extra: Sequence[int] = (),
    bits: int = 0,
    planar: bool = False,
    no_data: str = "",
    size: tuple[int, int] | None = None,
) -> bytes:
    """A TIFF of one page and one strip a plane. size: (height, width) to announce instead of the real one."""
    height, width = size or image.shape[:2]
    bands = 1 if image.ndim == 2 else image.shape[2]
    pixels = np.moveaxis(image, -1, 0) if planar else image[None]
    strips = [
        np.ascontiguousarray(plane).astype(plane.dtype.newbyteorder(order)).tobytes() for plane in pixels
    ]
    fields: list[tuple[int, int, Sequence[int] | bytes]] = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [bits or 8 * image.dtype.itemsize] * bands),
        (259, 3, [1]),
        (262, 3, [photometric if photometric is not None else 2 if bands > 2 else 1]),
        (273, 4, [0] * len(strips)),
        *([(274, 3, [orientation])] if orientation else []),
        (277, 3, [bands]),
        (278, 4, [height]),
        (279, 4, [len(strip) for strip in strips]),
        (284, 3, [2 if planar else 1]),
        *([(338, 3, list(extra))] if extra else []),
        (339, 3, [_KINDS[image.dtype.kind]] * bands),
        *([(42113, 2, no_data.encode() + b"\0")] if no_data else []),
    ]
    return _tiff_of(fields, strips, order)


def _tiff_of(fields: list[tuple[int, int, Sequence[int] | bytes]], strips: list[bytes], order: str) -> bytes:
    def packed(kind: int, values: Sequence[int] | bytes) -> bytes:
        if isinstance(values, bytes):
            return values
        return struct.pack(f"{order}{len(values)}{_CODES[kind]}", *values)

    after = 8 + 2 + 12 * len(fields) + 4
    begin = after + sum(len(raw) for _, kind, values in fields if len(raw := packed(kind, values)) > 4)
    entries, behind = b"", b""
    for tag, kind, values in fields:
        if tag == 273:
            values = [begin + sum(map(len, strips[:number])) for number in range(len(strips))]
        raw = packed(kind, values)
        entry = struct.pack(order + "HHI", tag, kind, len(values))
        if len(raw) > 4:
            entries += entry + struct.pack(order + "I", after + len(behind))
            behind += raw
        else:
            entries += entry + raw.ljust(4, b"\0")
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return start + struct.pack(order + "H", len(fields)) + entries + bytes(4) + behind + b"".join(strips)


def png(width: int, height: int, *, bits: int = 8, colour: int = 0, rows: bytes = b"") -> bytes:
    """A PNG of these announced sizes. rows: filter byte and samples of each row."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def bmp_of_32_bits(image: np.ndarray, masks: Sequence[int]) -> bytes:
    """A BMP of [H, W, 3], R, G, B, with a short header. masks: where a pixel has each colour, 8 bits each."""
    pixels = sum(image[::-1, :, band].astype(np.uint32) * (mask & -mask) for band, mask in enumerate(masks))
    header = struct.pack("<IiiHHIIiiII", 40, image.shape[1], image.shape[0], 1, 32, 3, 0, 0, 0, 0, 0)
    before = b"BM" + struct.pack("<III", 0, 0, 66) + header + struct.pack("<III", *masks)
    return before + np.asarray(pixels, "<u4").tobytes()


def announced(width: int, height: int) -> dict[str, bytes]:
    """Small files of each format that announce an image of this size, and contain almost none of it."""
    frame = struct.pack(">HBHHB", 11, 8, min(height, 65535), min(width, 65535), 1) + b"\x01\x11\0"
    vp8x = b"VP8X" + struct.pack("<I", 10) + bytes(4)
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return {
        "png": png(width, height),
        "jpeg": b"\xff\xd8\xff\xc0" + frame + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0\x10\xff\xd9",
        "bmp": b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, width, -height, 1, 8, 0, 0, 0, 0, 0, 0),
        "pgm": b"P5\n# made by hand\n%d %d\n255\n" % (width, height) + bytes(16),
        "tiff": tiff(np.zeros((4, 4), np.uint8), size=(height, width)),
        "big tiff": _big_tiff(width, height),
        "webp": b"RIFF" + struct.pack("<I", 22) + b"WEBP" + vp8x + size,
    }


def _big_tiff(width: int, height: int) -> bytes:
    fields = [(256, width), (257, height), (258, 8), (262, 1), (277, 1)]
    entries = b"".join(struct.pack("<HHQQ", tag, 4, 1, value) for tag, value in fields)
    return b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, len(fields)) + entries + bytes(8)


def pillow_bytes(image: np.ndarray, file_format: str, mode: str | None = None, **options: Any) -> bytes:
    """An image as Pillow writes it, in another mode if one is given."""
    made, file = Pillow.fromarray(image), io.BytesIO()
    (made.convert(mode) if mode else made).save(file, file_format, **options)
    return file.getvalue()


def written(path: Path, image: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), image)
    return path
