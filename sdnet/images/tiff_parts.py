"""Tests the compressed strips or tiles of a TIFF of up to 8 bits: OpenCV shows damaged ones as black rows.

OpenCV reports an error of the decoder only for deeper samples. So the same bytes are decoded once more behind tags
that call them 16-bit samples, two bytes each. The pixels of this second image have no meaning and are dropped.
Deflate has a checksum, which is compared instead: many damaged data still decode.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

_DEFLATE = (8, 32946)
# LZW, Deflate and PackBits: their data do not depend on the depth of the samples.
OF_BYTES = (5, *_DEFLATE, 32773)
_HIGH_BIT_FIRST = 1
# Some writers pad the last strip with rows. This limits the memory for what is behind the pixels.
_MOST_OTHER_BYTES = 1 << 26
_MOST_WIDTH = 1 << 20  # of an image that OpenCV decodes
_CODES = {3: "H", 4: "I", 16: "Q"}
_SHORT, _LONG, _LONG8 = 3, 4, 16


@dataclass(frozen=True, slots=True)
class CompressedParts:
    """Strips or tiles of one page.

    row_bytes: of a strip or tile. across: tiles beside each other, 1 for strips. rows: of a strip or tile.
    planes: for each plane the offset and the size of every part, in bytes. fill_order: of bits, as in the tag.
    """

    order: str
    compression: int
    fill_order: int
    row_bytes: int
    across: int
    rows: int
    height: int
    is_tiled: bool
    planes: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]

    def are_whole(self, data: bytes) -> bool:
        """Whether OpenCV decodes all parts of this file, apart from the last byte of rows with odd bytes."""
        if self.compression in _DEFLATE and self.fill_order == _HIGH_BIT_FIRST:
            return all(
                self._inflates(data[offset : offset + size], number)
                for offsets, sizes in self.planes
                for number, (offset, size) in enumerate(zip(offsets, sizes, strict=True))
            )
        width = self.row_bytes // 2 * self.across
        if not 0 < width <= _MOST_WIDTH:
            return True
        pixel_bytes = 2 * width * -(-self.height // max(self.rows, 1)) * self.rows
        return all(_decodes(twin, pixel_bytes) for twin in self._twins(data))

    def _inflates(self, part: bytes, number: int) -> bool:
        """Whether a part has all its pixels, and matches its checksum if it has one.

        number: of the part in its plane; the last strip may be lower. Some writers leave the checksum away.
        """
        rows = self.rows if self.is_tiled else min(self.rows, self.height - number * self.rows)
        needed, stream = rows * self.row_bytes, zlib.decompressobj()
        try:
            found = len(stream.decompress(part, needed + _MOST_OTHER_BYTES))
        except zlib.error:
            return False
        # Damaged data that decode do not end with the last pixel.
        return found == needed or (found > needed and stream.eof)

    def _twins(self, data: bytes) -> Iterator[bytearray]:
        """The file with other tags, once for each plane."""
        big = data[2:4] in (b"+\0", b"\0+")
        kind = _LONG8 if big else _LONG
        for offsets, sizes in self.planes:
            twin = bytearray(data) + bytes(-len(data) % 8)
            places = []
            for values in (offsets, sizes):
                places.append(len(twin))
                twin += struct.pack(f"{self.order}{len(values)}{_CODES[kind]}", *values)
            pointer = struct.pack(self.order + _CODES[kind], len(twin))
            twin[8 if big else 4 : (8 if big else 4) + len(pointer)] = pointer
            twin += self._tags(kind, places, (offsets, sizes))
            yield twin

    def _tags(self, kind: int, places: list[int], tables: tuple[tuple[int, ...], tuple[int, ...]]) -> bytes:
        """One page of grey 16-bit samples. places: of the tables of offsets and sizes, in the file."""
        width = self.row_bytes // 2
        tags = {
            256: (_LONG, width * self.across), 257: (_LONG, self.height), 258: (_SHORT, 16),
            259: (_SHORT, self.compression), 262: (_SHORT, 1), 266: (_SHORT, self.fill_order), 277: (_SHORT, 1),
        }  # fmt: skip
        tags |= {322: (_LONG, width), 323: (_LONG, self.rows)} if self.is_tiled else {278: (_LONG, self.rows)}
        code = _CODES[kind]
        entries = {
            tag: struct.pack(f"{self.order}HH{code}", tag, short, 1)
            + struct.pack(self.order + _CODES[short], value).ljust(struct.calcsize(code), b"\0")
            for tag, (short, value) in tags.items()
        }
        for tag, place, values in zip(
            (324, 325) if self.is_tiled else (273, 279), places, tables, strict=True
        ):
            # A single value stands in the entry itself.
            value = values[0] if len(values) == 1 else place
            entries[tag] = struct.pack(f"{self.order}HH{code}{code}", tag, kind, len(values), value)
        count = struct.pack(self.order + ("Q" if kind == _LONG8 else "H"), len(entries))
        return count + b"".join(entries[tag] for tag in sorted(entries)) + bytes(8)


def _decodes(content: bytearray, pixel_bytes: int) -> bool:
    """Whether OpenCV decodes the file. Raises MemoryError if there is too little memory to know."""
    cv2.setLogLevel(0)  # OpenCV warns of each damaged part
    try:
        if cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) is not None:
            return True
    except cv2.error:
        pass
    np.empty(2 * pixel_bytes, np.uint8)  # OpenCV says the same of damage and of little memory
    return False
