"""What the header of an image file announces, and access to its first bytes."""

import struct
from dataclasses import dataclass
from typing import BinaryIO, Literal

from sdnet.images.tiff_parts import CompressedParts

SampleKind = Literal["unsigned", "signed", "float"]

_HEAD_BYTES = 1 << 16


class BadHeader(Exception):
    """A header that is truncated, inconsistent or of an unsupported format. The argument is the reason."""


class CutOff(BadHeader):
    """A file that ends inside its header."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What a file announces.

    width, height: pixels.
    bands: samples of a pixel, alpha included.
    bits: of one sample.
    edits: (offset, bytes) to write over the file's bytes before they are decoded, for PNG and TIFF.
    no_data: the sample value that marks unknown pixels, if the file names one.
    refusal: why the image cannot be used although it may be intact, or empty.
    whole_bytes: the least size of the whole file by this header, 0 if it does not say. Some writers give a wrong one,
    so it only explains why a file was not decoded.
    parts: the compressed strips or tiles to test, of a TIFF of up to 8 bits.
    """

    format: str
    width: int
    height: int
    bands: int
    bits: int
    kind: SampleKind = "unsigned"
    edits: tuple[tuple[int, bytes], ...] = ()
    no_data: float | None = None
    refusal: str = ""
    whole_bytes: int = 0
    parts: CompressedParts | None = None

    @property
    def pixels(self) -> int:
        return self.width * self.height

    def not_decoded(self, size: int, why: str = "") -> BadHeader:
        """The error for a file of `size` bytes that OpenCV did not decode. why: what OpenCV said, or empty."""
        if size < self.whole_bytes:
            return BadHeader(f"is a truncated {self.format} ({size} of {self.whole_bytes} bytes)")
        return BadHeader(f"is not an image that OpenCV decodes{f' ({why})' if why else ''}")

    def refuse_damaged_parts(self, data: bytes) -> None:
        """Raise BadHeader for a file whose pixels OpenCV fills in where it cannot decode them."""
        if self.parts and not self.parts.are_whole(data):
            raise BadHeader("is a damaged TIFF (a strip or tile cannot be decoded)")


class HeaderBytes:
    """Random access to a file; only a few bytes are read."""

    def __init__(self, file: BinaryIO):
        self._file = file
        # No seek before the first read, so that this also works on streams.
        self.head = file.read(_HEAD_BYTES)

    def at(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`. Raises CutOff when the file ends before."""
        if offset + size <= len(self.head):
            return self.head[offset : offset + size]
        try:
            self._file.seek(offset)
            found = self._file.read(size)
        except (ValueError, OverflowError):
            found = b""  # an offset beyond what a file can have
        if len(found) < size:
            raise CutOff("is cut off inside its header")
        return found

    def unpack(self, layout: str, offset: int) -> tuple[int, ...]:
        """Unpack numbers in a format of `struct`."""
        return struct.unpack(layout, self.at(offset, struct.calcsize(layout)))
