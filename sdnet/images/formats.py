"""Reads the header of every supported image format, without decoding a pixel.

A file of 100 bytes can announce 10^10 pixels, so its header is checked before a decoder allocates
memory. The first bytes decide the format, not the suffix.
"""

import re
import struct
import zlib
from collections.abc import Callable
from typing import BinaryIO

from sdnet.images.header import BadHeader, HeaderBytes, ImageHeader
from sdnet.images.tiff_header import is_tiff, tiff_header

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_BANDS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type; a palette image stores one index a pixel
_ANCILLARY = 0x20  # bit of a chunk's first letter: a decoder need not know it
_PNG_IGNORED = b"prIv"  # no decoder knows this kind of chunk, and each must skip it
_PNG_MOST_CHUNKS, _PNG_MOST_BYTES = 1000, 1 << 24
# Files that users put among their images, by a pattern of their first bytes.
_NOT_READ = (
    (rb"GIF8[79]a", "a GIF image"),
    (rb"....ftyp(?:hei[cxms]|hev[cx]|mif1|msf1)", "a HEIC image"),
    (rb"....ftypavi[fs]", "an AVIF image"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL image"),
    (rb"%PDF-", "a PDF document"),
    (rb"CDF[\x01\x02\x05]", "a NetCDF file"),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 or NetCDF-4 file"),
    (rb"\x0e\x03\x13\x01", "an HDF4 file"),
    (rb"ENVI\s", "an ENVI header"),
    (rb"PK\x03\x04", "a ZIP archive, such as of a .SAFE product"),
    (rb"\x1f\x8b", "a gzip archive"),
    (rb"8BPS", "a Photoshop image"),
    (rb"\x76\x2f\x31\x01", "an OpenEXR image"),
)
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_ALONE = frozenset((0x01, *range(0xD0, 0xD8)))  # markers without a length
# OpenCV reads the masks of red, green and blue behind a long header. Behind a short one it assumes these.
_BMP_SHORT = ((40, 3), (52, 3), (40, 6))  # size of the header, and the compression that announces masks
_BMP_PLAIN = (0, 3)  # compressions that store every pixel: none, and none with masks
_BMP_MASKS = (0xFF0000, 0xFF00, 0xFF)
_PNM_TOKENS = re.compile(rb"P([1-6])(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)(?:(?:\s|#[^\n]*\n)+(\d+))?")


def read_header(file: BinaryIO) -> ImageHeader:
    """The header of a PNG, JPEG, TIFF, BMP, PNM or WebP file.

    Raises OSError, and BadHeader, which names other kinds of files that users put among their images.
    """
    content = HeaderBytes(file)
    if not content.head:
        raise BadHeader("is empty")
    for is_format, read in _FORMATS:
        if is_format(content.head):
            header = read(content)
            if header.width < 1 or header.height < 1:
                raise BadHeader(f"announces {header.width} x {header.height} px")
            return header
    if content.head.startswith(b"version https://git-lfs.github.com/spec/"):
        raise BadHeader("is a pointer of Git LFS and not the image; fetch it with `git lfs pull`")
    for pattern, kind in _NOT_READ:
        if re.match(pattern, content.head, re.DOTALL):
            raise BadHeader(f"is {kind}, which is not read; convert it to TIFF or PNG")
    raise BadHeader("is not a PNG, JPEG, TIFF, BMP, PNM or WebP image")


def _png(content: HeaderBytes) -> ImageHeader:
    length, kind, width, height, bits, colour = content.unpack(">I4sIIBB", len(_PNG))
    if kind != b"IHDR" or length != 13 or colour not in _PNG_BANDS:
        raise BadHeader("is a damaged PNG (its header chunk)")
    return ImageHeader("PNG", width, height, _PNG_BANDS[colour], bits, edits=_without_remarks(content))


def _without_remarks(content: HeaderBytes) -> tuple[tuple[int, bytes], ...]:
    """Edits that hide what a PNG says beside its pixels.

    A gamma (gAMA, sRGB, iCCP, cICP) would make the decoder convert colours to grey in linear light, and equal pixels
    must give equal greys, whichever program wrote the file. An invalid chunk would make libpng print a warning.
    """
    edits, position = [], len(_PNG)
    for _ in range(_PNG_MOST_CHUNKS):
        try:
            (length,), kind = content.unpack(">I", position), content.at(position + 4, 4)
            if not kind.isalpha() or kind == b"IDAT" or length > _PNG_MOST_BYTES:
                break
            if kind[0] & _ANCILLARY and kind != b"tRNS":  # transparency, which belongs to the pixels
                ignored = _PNG_IGNORED + content.at(position + 8, length)
                edits.append((position + 4, ignored + struct.pack(">I", zlib.crc32(ignored))))
        except BadHeader:
            break  # `refuse_incomplete` names what is missing
        position += 12 + length
    return tuple(edits)


def _jpeg(content: HeaderBytes) -> ImageHeader:
    position = 2
    while True:
        fill, marker = content.unpack("BB", position)
        if fill != 0xFF:
            raise BadHeader("is a damaged JPEG (no marker where one should be)")
        if marker == 0xFF or marker in _JPEG_ALONE:
            position += 1 if marker == 0xFF else 2
        elif marker in _JPEG_FRAMES:
            bits, height, width, bands = content.unpack(">BHHB", position + 4)
            refusal = "" if bands in (1, 3) else f"is a JPEG of {bands} components (CMYK); write grey or RGB"
            return ImageHeader("JPEG", width, height, bands, bits, refusal=refusal or _only_8(bits))
        elif marker in (0xD9, 0xDA):
            raise BadHeader("is a damaged JPEG (no frame header)")
        else:
            position += 2 + content.unpack(">H", position + 2)[0]


def _only_8(bits: int) -> str:
    return "" if bits == 8 else f"is a JPEG of {bits} bits a sample; write 8-bit JPEG, or 16-bit PNG or TIFF"


def _bmp(content: HeaderBytes) -> ImageHeader:
    if content.unpack("<I", 14) == (12,):  # OS/2's short header
        width, height, bits = content.unpack("<HH2xH", 18)
        compression = 0
    else:
        width, height, bits, compression = content.unpack("<ii2xHI", 18)
    if bits == 32 and content.unpack("<I12xI", 14) in _BMP_SHORT and content.unpack("<III", 54) != _BMP_MASKS:
        raise BadHeader("is a BMP that does not store blue, green and red in this order; write a PNG")
    said, start = content.unpack("<I4xI", 2)
    # Some writers give 0 for the size of the file, so only a compressed one relies on it.
    rows = (abs(width) * bits + 31) // 32 * 4 * abs(height)
    whole = start + rows if compression in _BMP_PLAIN else said
    return ImageHeader("BMP", abs(width), abs(height), 3 if bits > 8 else 1, min(bits, 8), whole_bytes=whole)


def _pnm(content: HeaderBytes) -> ImageHeader:
    found = _PNM_TOKENS.match(content.head)
    if found is None or max(len(found[2]), len(found[3])) > 10:
        raise BadHeader("is a damaged PNM (its header)")
    # OpenCV scales another maximum to 255 in text files only. A deep image is always stretched.
    plain = found[1] in b"14" or int((found[4] or b"255")[:6]) == 255
    width, height, bands = int(found[2]), int(found[3]), 3 if found[1] in b"36" else 1
    bits = 1 if found[1] == b"4" else 8 if int((found[4] or b"1")[:6]) < 256 else 16
    rows = (width * bands * bits + 7) // 8 * height
    whole = found.end() + 1 + rows if found[1] in b"456" else 0
    return ImageHeader("PNM", width, height, bands, 8 if plain else 16, whole_bytes=whole)


def _webp(content: HeaderBytes) -> ImageHeader:
    kind = content.at(12, 4)
    if kind == b"VP8 ":
        width, height = (number & 0x3FFF for number in content.unpack("<HH", 26))
    elif kind == b"VP8L":
        bits = content.unpack("<I", 21)[0]
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8X":
        width, height = (int.from_bytes(content.at(offset, 3), "little") + 1 for offset in (24, 27))
    else:
        raise BadHeader("is a damaged WebP (its first chunk)")
    return ImageHeader("WebP", width, height, 3, 8, whole_bytes=8 + content.unpack("<I", 4)[0])


def _jpeg_2000(content: HeaderBytes) -> ImageHeader:
    # OpenCV 4.11 crashes on some damaged files, so none is decoded.
    raise BadHeader("is a JPEG 2000 image, which is not read; write PNG or TIFF")


_FORMATS: tuple[tuple[Callable[[bytes], bool], Callable[[HeaderBytes], ImageHeader]], ...] = (
    (lambda head: head.startswith(_PNG), _png),
    (lambda head: head.startswith(b"\xff\xd8"), _jpeg),
    (is_tiff, tiff_header),
    (lambda head: head.startswith(b"BM"), _bmp),
    (lambda head: re.match(rb"P[1-6]\s", head) is not None, _pnm),
    (lambda head: head.startswith(b"RIFF") and head[8:12] == b"WEBP", _webp),
    (lambda head: head.startswith((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")), _jpeg_2000),
)
