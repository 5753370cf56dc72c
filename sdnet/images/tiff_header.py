"""Reads the tags of a TIFF's first page that affect decoding, and says which ones to overwrite first.

Two tags would make the decoder alter pixels: orientation turns the image against its partner, and unassociated
alpha darkens it. Both are overwritten in memory before decoding, so that the pixels are decoded as they are
stored, as for JPEG and PNG.
"""

import re
import struct
from dataclasses import dataclass
from functools import partial

from sdnet.images.header import BadHeader, CutOff, HeaderBytes, ImageHeader, SampleKind
from sdnet.images.tiff_parts import OF_BYTES, CompressedParts

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION = 256, 257, 258, 259, 262, 274
_SAMPLES, _PLANAR, _EXTRA, _FORMAT = 277, 284, 338, 339
_METADATA, _NO_DATA = 42112, 42113  # GDAL's, both text
_FILL_ORDER, _STRIPS, _ROWS, _STRIP_BYTES = 266, 273, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 322, 323, 324, 325
_OF_PARTS = (_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES)
_CODES = {1: "B", 2: "s", 3: "H", 4: "I", 16: "Q"}  # of the field types that these tags may have
_MOST_VALUES, _MOST_PARTS, _MOST_FIELDS = 64, 1 << 20, 4096
_LONG = (*_OF_PARTS, _METADATA)  # tags that may have up to _MOST_PARTS values
_LEAST_TILE_BYTES = 1024  # of one band; OpenCV decodes deeper tiles of any size
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
# Compressions that GDAL and Pillow write, but that OpenCV cannot decode.
_NOT_DECODED = {
    6: "old JPEG", 34712: "JPEG 2000", 34887: "LERC", 34925: "LZMA", 50000: "Zstandard", 50001: "WebP",
    50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
# How GDAL writes the meaning of a band where no tag of TIFF can say it.
_MEANING = re.compile(rb'<Item name="COLORINTERP" sample="([0-9])" role="colorinterp">([A-Za-z_]+)</Item>')
_ALPHA = (1, 2)  # associated, unassociated
_KINDS: dict[int, SampleKind] = {1: "unsigned", 2: "signed", 3: "float", 4: "unsigned"}
_DEPTHS = {
    ("unsigned", 1), ("unsigned", 8), ("unsigned", 16), ("signed", 16), ("signed", 32),
    ("float", 32), ("float", 64),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Field:
    """One tag. code: `struct` format of each value. place: the offset of the first value in the file."""

    values: tuple[int, ...]
    text: bytes
    code: str
    place: int


def is_tiff(head: bytes) -> bool:
    """Whether these are the first bytes of a TIFF or BigTIFF, in either byte order."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def tiff_header(content: HeaderBytes) -> ImageHeader:
    """The header of the first page of a TIFF or BigTIFF. Raises BadHeader."""
    order = "<" if content.head[:2] == b"II" else ">"
    try:
        fields = _fields(content, order)
    except CutOff:  # many programs write the tags behind the pixels
        raise BadHeader("is a truncated TIFF (its tags are cut off)") from None
    first = partial(_first, fields)
    if _WIDTH not in fields or _HEIGHT not in fields:
        raise BadHeader("is a damaged TIFF (no size)")
    bits = fields[_BITS].values if _BITS in fields else (1,)
    kind = _KINDS.get(first(_FORMAT, 1))
    bands = first(_SAMPLES, 1)
    return ImageHeader(
        "TIFF",
        first(_WIDTH, 0),
        first(_HEIGHT, 0),
        bands,
        bits[0] if bits else 0,
        kind or "unsigned",
        edits=_edits(fields, deep_rgb=bands == 3 and bits[:1] > (8,)),
        no_data=_no_data(fields),
        refusal=_other_order(fields)
        or _refusal(
            bands,
            bits,
            kind,
            compression=first(_COMPRESSION, 1),
            photometric=first(_PHOTOMETRIC, _BLACK_IS_ZERO),
            planar=first(_PLANAR, 1) == 2,
            extra=fields[_EXTRA].values if _EXTRA in fields else (),
        )
        or _missing_parts(fields)
        or _small_tiles(fields, bits[0] if bits else 0)
        or _cut_off(content, fields),
        whole_bytes=_end_of_parts(fields),
        parts=_compressed_parts(fields, order),
    )


def _first(fields: dict[int, _Field], tag: int, default: int) -> int:
    return fields[tag].values[0] if tag in fields and fields[tag].values else default


def _refusal(
    bands: int,
    bits: tuple[int, ...],
    kind: str | None,
    *,
    compression: int,
    photometric: int,
    planar: bool,
    extra: tuple[int, ...],
) -> str:
    """Why such a TIFF would be decoded wrongly, or not at all; empty if it is supported."""
    if compression in _NOT_DECODED:
        name = _NOT_DECODED[compression]
        return f"is a TIFF compressed with {name}; write it with Deflate, LZW or without compression"
    deep = bits[:1] > (8,)
    alpha = bool(extra) and extra[0] in _ALPHA
    if photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR):
        return f"is a TIFF of photometric interpretation {photometric} (such as CMYK); write grey or RGB"
    # Each of the following would be decoded as something else, without an error.
    if bands > 4 or (bands == 4 and photometric != _RGB) or (bands == 2 and (deep or not alpha)):
        return f"is a TIFF of {bands} bands; give 1 (grey, such as one polarisation) or 3 (RGB)"
    if bands == 3 and photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO) and not deep:
        return "is a TIFF of 3 bands that does not say they are RGB; write it as RGB, or one band"
    if planar and bands > 1 and deep:
        return "is a TIFF that stores one band after another; write it interleaved by pixel"
    if deep and photometric not in (_BLACK_IS_ZERO, _RGB):
        return f"is a {bits[0]}-bit TIFF of photometric interpretation {photometric}; write grey or RGB"
    if len(set(bits)) != 1 or kind is None or (kind, bits[0]) not in _DEPTHS:
        depth = "/".join(str(number) for number in bits[:4])
        return (
            f"is a TIFF of {kind or 'complex or unknown'} {depth}-bit samples; write 8 or 16-bit integers, "
            "or 32-bit floating point"
        )
    return ""


def _other_order(fields: dict[int, _Field]) -> str:
    """Why the decoder would mix up the colours, or empty: to it three bands are always red, green, blue."""
    found = _MEANING.findall(fields[_METADATA].text) if _METADATA in fields else ()
    meanings = [meaning.decode().lower() for _, meaning in sorted(found)]
    colours = ["red", "green", "blue"]
    if not set(colours) <= set(meanings) or meanings[:3] == colours:
        return ""
    return f"is a TIFF whose bands are {', '.join(meanings)}; reorder them to red, green, blue"


def _missing_parts(fields: dict[int, _Field]) -> str:
    """Why the decoder would take other bytes of the file for pixels of a strip or tile, or empty."""
    across, down = _grid(fields)
    needed = across * down * _planes(fields)
    place = _TILES if _TILES in fields else _STRIPS
    offsets = fields[place].values[:needed] if place in fields else ()
    missing = needed - len(offsets) + offsets.count(0)  # GDAL's SPARSE_OK writes 0
    if not missing or needed > _MOST_PARTS:
        return ""
    return (
        f"is a TIFF without {missing} of its {needed} strips or tiles; write all of them (GDAL: no SPARSE_OK)"
    )


def _grid(fields: dict[int, _Field]) -> tuple[int, int]:
    """How many strips or tiles of one plane are beside each other, and how many below each other."""
    first = partial(_first, fields)
    width, height = first(_WIDTH, 0), first(_HEIGHT, 0)
    is_tiled = _TILES in fields
    across = -(-width // max(first(_TILE_WIDTH, width), 1)) if is_tiled else 1
    return across, -(-height // max(first(_TILE_HEIGHT if is_tiled else _ROWS, height), 1))


def _planes(fields: dict[int, _Field]) -> int:
    return _first(fields, _SAMPLES, 1) if _first(fields, _PLANAR, 1) == 2 else 1


def _compressed_parts(fields: dict[int, _Field], order: str) -> CompressedParts | None:
    """The strips or tiles that OpenCV decodes without a word although they are damaged, or None."""
    first = partial(_first, fields)
    bits, compression, height = first(_BITS, 1), first(_COMPRESSION, 1), first(_HEIGHT, 0)
    is_tiled, planes, (across, down) = _TILES in fields, _planes(fields), _grid(fields)
    place, sizes = (_TILES, _TILE_BYTES) if is_tiled else (_STRIPS, _STRIP_BYTES)
    number = across * down
    unknown = place not in fields or len(fields[place].values) < number * planes
    # Some writers give 0 for the size of a single strip, and libtiff works it out.
    unknown = unknown or sizes not in fields or len(fields[sizes].values) < number * planes
    unknown = unknown or 0 in fields[sizes].values
    # Subsampled colours take fewer bytes than their tags say.
    if bits > 8 or compression not in OF_BYTES or first(_PHOTOMETRIC, 1) == _YCBCR or unknown:
        return None
    samples = 1 if planes > 1 else first(_SAMPLES, 1)
    parts = [slice(plane * number, (plane + 1) * number) for plane in range(planes)]
    return CompressedParts(
        order,
        compression,
        fill_order=first(_FILL_ORDER, 1),
        row_bytes=-(-first(_TILE_WIDTH if is_tiled else _WIDTH, 0) * samples * bits // 8),
        across=across,
        rows=first(_TILE_HEIGHT, 0) if is_tiled else min(first(_ROWS, height), height),
        height=height,
        is_tiled=is_tiled,
        planes=tuple((fields[place].values[part], fields[sizes].values[part]) for part in parts),
    )


def _small_tiles(fields: dict[int, _Field], bits: int) -> str:
    """Why OpenCV does not decode the tiles, or empty: it refuses small ones of up to 8 bits."""
    width, height = _first(fields, _TILE_WIDTH, 0), _first(fields, _TILE_HEIGHT, 0)
    if _TILES not in fields or bits > 8 or width * height * bits >= 8 * _LEAST_TILE_BYTES:
        return ""
    return (
        f"is a {bits}-bit TIFF in tiles of {width} x {height} px, which are too small for the decoder; write it with "
        "larger tiles, such as 256 x 256, or in strips"
    )


def _cut_off(content: HeaderBytes, fields: dict[int, _Field]) -> str:
    """Why a file of planes ends inside its pixels, or empty.

    The decoder reports truncation of other files. In planes it silently fills in what is missing.
    """
    if _first(fields, _PLANAR, 1) != 2:
        return ""
    try:
        content.at(max(_end_of_parts(fields) - 1, 0), 1)
    except BadHeader:
        return "is a truncated TIFF (its last strip or tile is cut off)"
    return ""


def _end_of_parts(fields: dict[int, _Field]) -> int:
    """Where the last strip or tile ends in the file, 0 if no tag says so."""
    place, sizes = (_TILES, _TILE_BYTES) if _TILES in fields else (_STRIPS, _STRIP_BYTES)
    if place not in fields or sizes not in fields:
        return 0
    parts = zip(fields[place].values, fields[sizes].values, strict=False)
    return max((begin + size for begin, size in parts), default=0)


def _edits(fields: dict[int, _Field], deep_rgb: bool) -> tuple[tuple[int, bytes], ...]:
    """Bytes to overwrite: no orientation, alpha without a meaning, and RGB for three deep bands."""
    values = {_ORIENTATION: 1}
    if _EXTRA in fields and fields[_EXTRA].values[:1] == (2,):
        values[_EXTRA] = 0
    if deep_rgb:  # GDAL calls three bands grey unless they have 8 bits
        values[_PHOTOMETRIC] = _RGB
    return tuple(
        (fields[tag].place, struct.pack(fields[tag].code, value))
        for tag, value in values.items()
        if tag in fields and fields[tag].values
    )


def _no_data(fields: dict[int, _Field]) -> float | None:
    try:
        return float(fields[_NO_DATA].text.strip(b"\0 ")) if _NO_DATA in fields else None
    except ValueError:
        return None  # GDAL ignores other text, too


def _fields(content: HeaderBytes, order: str) -> dict[int, _Field]:
    """The known tags of the first page; of a duplicate tag the first counts, as in libtiff."""
    big = content.unpack(order + "H", 2) == (43,)
    start = content.unpack(order + ("Q" if big else "I"), 8 if big else 4)[0]
    count = content.unpack(order + ("Q" if big else "H"), start)[0]
    if count > _MOST_FIELDS:
        raise BadHeader(f"is a damaged TIFF ({count} fields on its first page)")
    size, inline = (20, 8) if big else (12, 4)
    position = start + (8 if big else 2)
    known = {
        _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION, _SAMPLES, _PLANAR, _EXTRA, _FORMAT,
        _FILL_ORDER, _METADATA, _NO_DATA, _STRIPS, _ROWS, _STRIP_BYTES, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES,
    }  # fmt: skip
    fields: dict[int, _Field] = {}
    for entry in range(position, position + count * size, size):
        tag, kind, number = content.unpack(order + ("HHQ" if big else "HHI"), entry)
        if tag in known and kind in _CODES and tag not in fields:
            place = entry + size - inline
            number = min(number, _MOST_PARTS if tag in _LONG else _MOST_VALUES)
            layout = f"{order}{number}{_CODES[kind]}"
            if struct.calcsize(layout) > inline:
                place = content.unpack(order + ("Q" if big else "I"), place)[0]
            raw = content.at(place, struct.calcsize(layout))
            values = () if kind == 2 else struct.unpack(layout, raw)
            fields[tag] = _Field(values, raw, order + _CODES[kind], place)
    return fields
