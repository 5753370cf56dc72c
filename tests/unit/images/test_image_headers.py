"""The header decides whether an image is decoded: not if too large, misread, or of an unknown kind."""

import io
import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile
from rasterio.windows import Window

from sdnet.images.decode import BadImage, read_grey
from sdnet.images.formats import read_header
from sdnet.images.header import BadHeader
from tests.unit.images.image_files import (
    COLOURS,
    GREY,
    LIMIT,
    announced,
    bmp_of_32_bits,
    pillow_bytes,
    png,
    tiff,
)

MANY = np.repeat(GREY[:, :, None], 13, axis=2)
REFUSED = {
    "13 bands": (tiff(MANY, photometric=1, extra=[0] * 12), "is a TIFF of 13 bands; give 1 .grey, .* or 3"),
    "VV and VH": (tiff(MANY[:, :, :2].astype(np.float32), extra=[0]), "is a TIFF of 2 bands"),
    "VV and VH of 8 bits": (tiff(MANY[:, :, :2], extra=[0]), "is a TIFF of 2 bands"),
    "B, G, R and NIR": (tiff(MANY[:, :, :4].astype(np.uint16), photometric=1), "is a TIFF of 4 bands"),
    "3 bands that are not RGB": (tiff(COLOURS, photometric=1, extra=[0, 0]), "does not say they are RGB"),
    "3 bands whose zero is white": (tiff(COLOURS, photometric=0), "does not say they are RGB"),
    "red first in a BMP": (bmp_of_32_bits(COLOURS, (0xFF, 0xFF00, 0xFF0000)), "blue, green and red in this order"),
    "deep planes": (tiff(COLOURS.astype(np.uint16), planar=True), "one band after another"),
    "CMYK TIFF": (tiff(MANY[:, :, :4], photometric=5), "photometric interpretation 5"),
    "CMYK JPEG": (pillow_bytes(COLOURS, "JPEG", "CMYK"), r"is a JPEG of 4 components \(CMYK\)"),
    "white is zero": (tiff(GREY.astype(np.uint16), photometric=0), "16-bit TIFF of photometric .* 0; write"),
    "uint32": (tiff(GREY.astype(np.uint32)), "is a TIFF of unsigned 32-bit samples; write 8 or 16-bit"),
    "int8": (tiff(GREY.astype(np.int8)), "is a TIFF of signed 8-bit samples"),
    "float16": (tiff(GREY.astype(np.float16)), "is a TIFF of float 16-bit samples"),
    "complex": (tiff(GREY.astype(np.complex64)), "is a TIFF of complex or unknown 64-bit samples"),
    "12 bits": (tiff(GREY, bits=12), "is a TIFF of unsigned 12-bit samples"),
    "Zstandard": (pillow_bytes(GREY, "TIFF", compression="zstd"), "compressed with Zstandard; write it with Deflate"),
    "LZMA": (pillow_bytes(GREY, "TIFF", compression="lzma"), "compressed with LZMA; write it"),
    "cut in its tags": (tiff(GREY)[:40], "is a truncated TIFF .its tags are cut off."),
    "cut in its header": (png(20, 20)[:20], "is cut off inside its header"),
    "GIF": (pillow_bytes(GREY, "GIF"), "is a GIF image, which is not read; convert it to TIFF or PNG"),
    "AVIF": (b"\0\0\0\x20ftypavif\0\0\0\0", "is an AVIF image, which is not read"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0", "is a HEIC image, which"),
    "JPEG XL": (b"\xff\x0a\x10\xb0", "is a JPEG XL image, which"),
    "JPEG XL in boxes": (b"\0\0\0\x0cJXL \r\n\x87\n", "is a JPEG XL image, which"),
    "PDF": (b"%PDF-1.7\n", "is a PDF document, which"),
    "NetCDF": (b"CDF\x01\0\0\0\0", "is a NetCDF file, which"),
    "HDF5": (b"\x89HDF\r\n\x1a\n\0", "is an HDF5 or NetCDF-4 file, which"),
    "ENVI": (b"ENVI\nsamples = 20\n", "is an ENVI header, which"),
    "ZIP": (b"PK\x03\x04\x14\0", "is a ZIP archive, such as of a .SAFE product, which"),
    "no frame": (b"\xff\xd8\xff\xd9", r"is a damaged JPEG \(no frame header\)"),
    "0 px": (png(0, 20), "announces 0 x 20 px"),
    "an LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "`git lfs pull`"),
    "a web page": (b"<!DOCTYPE html>", "is not a PNG, JPEG, TIFF, BMP, PNM or WebP image"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n", "is a JPEG 2000 image, which is not read; write PNG or TIFF"),
    "its code stream": (b"\xff\x4f\xff\x51\0\x29", "is a JPEG 2000 image"),
    "empty": (b"", "is empty"),
}  # fmt: skip


@pytest.mark.parametrize("content, reason", REFUSED.values(), ids=REFUSED)
def test_what_would_be_read_wrongly_is_refused_by_name(read, content, reason):
    with pytest.raises(BadImage, match=reason):
        read(content)


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
@pytest.mark.parametrize(
    ("dtype", "meanings", "is_read"),
    [
        ("uint8", "red green blue", True), ("uint8", "red green blue alpha", True),
        ("uint8", "undefined undefined undefined", True), ("uint16", "red green blue", True),
        ("uint8", "blue green red", False), ("uint8", "blue green red alpha", False),
        ("uint16", "green red blue", False), ("float32", "blue green red", False),
    ],
)  # fmt: skip
def test_bands_that_gdal_calls_blue_green_red_are_refused_and_never_mixed_up(read, dtype, meanings, is_read):
    names = meanings.split()
    # Files that do not say they are RGB get the same reason: written as RGB they would be mixed up.
    for options in ({},) if is_read else ({}, {"photometric": "MINISBLACK"}):
        with MemoryFile() as memory:
            size = {"width": 30, "height": 20, "count": len(names), "dtype": dtype}
            with memory.open(driver="GTiff", **size, **options) as file:
                file.write(np.moveaxis(MANY[:, :, : len(names)], -1, 0).astype(dtype))
                file.update_tags(note="x" * 1000)
                file.colorinterp = [ColorInterp[name] for name in names]
            content = bytes(memory.getbuffer())
        if is_read:
            assert read(content).shape == (20, 30)
        else:
            with pytest.raises(BadImage, match=f"whose bands are {', '.join(names)}; reorder them to red"):
                read(content)


def test_planes_of_8_bits_are_read_as_the_same_colours(read):
    np.testing.assert_array_equal(read(tiff(COLOURS, planar=True)), read(tiff(COLOURS)))


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
@pytest.mark.parametrize("compress", ["none", "lzw", "deflate", "packbits"])
@pytest.mark.parametrize("tiled", [False, True])
def test_planes_of_8_bits_that_are_cut_off_are_bad_although_opencv_fills_them_in(read, compress, tiled):
    with MemoryFile() as memory:
        # Smaller tiles without compression are not decoded at all.
        layout = {"tiled": True, "blockxsize": 32, "blockysize": 32} if tiled else {"blockysize": 4}
        size = {"width": 30, "height": 20, "count": 3, "dtype": "uint8", "photometric": "rgb"}
        with memory.open(driver="GTiff", compress=compress, interleave="band", **size, **layout) as file:
            file.write(np.moveaxis(COLOURS, -1, 0))
        content = bytes(memory.getbuffer())
    read(content)
    for end in (len(content) - 1, len(content) * 2 // 3):
        with pytest.raises(BadImage, match=r"truncated TIFF \(its last strip or tile is cut off\)|cut off"):
            read(content[:end])


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
@pytest.mark.parametrize("layout", [{"blockysize": 4}, {"tiled": True, "blockxsize": 16, "blockysize": 16}])
def test_a_sparse_tiff_is_refused_because_its_holes_decode_to_other_bytes_of_the_file(read, layout):
    with MemoryFile() as memory:
        size = {"width": 32, "height": 32, "count": 1, "dtype": "float32"}
        with memory.open(driver="GTiff", SPARSE_OK=True, **size, **layout) as file:
            file.write(np.ones((4, 32), np.float32), 1, window=Window(0, 0, 32, 4))
        content = bytes(memory.getbuffer())
    with pytest.raises(BadImage, match=r"is a TIFF without \d of its \d strips or tiles; write all of them"):
        read(content)


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
@pytest.mark.parametrize(("edge", "bits"), [(16, 8), (32, 8), (64, 1), (128, 1), (16, 16)])
def test_tiles_that_are_too_small_for_the_decoder_are_named_and_all_others_are_read(read, edge, bits):
    dtype = "uint16" if bits == 16 else "uint8"
    with MemoryFile() as memory:
        layout = {
            "tiled": True,
            "blockxsize": edge,
            "blockysize": edge,
            **({"nbits": 1} if bits == 1 else {}),
        }
        with memory.open(driver="GTiff", width=30, height=20, count=1, dtype=dtype, **layout) as file:
            file.write((GREY % 2).astype(dtype), 1)
        content = bytes(memory.getbuffer())
    if edge * edge * min(bits, 8) >= 8 * 1024 or bits > 8:
        assert read(content).any()
        return
    with pytest.raises(
        BadImage, match=f"is a {bits}-bit TIFF in tiles of {edge} x {edge} px, which are too small"
    ):
        read(content)


def test_a_bmp_with_the_usual_masks_is_read_as_one_without_masks(read):
    masked = read(bmp_of_32_bits(COLOURS, (0xFF0000, 0xFF00, 0xFF)))
    np.testing.assert_array_equal(masked, read(pillow_bytes(COLOURS, "BMP")))


@pytest.mark.parametrize("name, content", announced(60_000, 50_000).items(), ids=announced(9, 9))
def test_a_small_file_that_announces_gigapixels_is_bad_and_takes_no_memory(read, name, content):
    assert len(content) < 300
    tracemalloc.start()
    with pytest.raises(BadImage, match=r"announces 60000 x 50000 px, more than data.max_pixels \(1048576\)"):
        read(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("name, content", announced(300, 200).items(), ids=announced(9, 9))
def test_a_file_that_holds_less_than_it_announces_is_bad(read, name, content):
    with pytest.raises(BadImage):
        read(content)


def test_a_sparse_file_is_refused_before_its_gigabytes_are_read(tmp_path):
    path = tmp_path / "sparse.png"
    path.write_bytes(pillow_bytes(GREY, "PNG"))
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    tracemalloc.start()
    with pytest.raises(
        BadImage, match=r"is a file of 1099511627776 bytes, .* raise data.max_pixels \(1048576\)"
    ):
        read_grey(path, LIMIT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_the_limit_itself_is_allowed(tmp_path):
    path = tmp_path / "image.png"
    assert cv2.imwrite(str(path), GREY)
    assert read_grey(path, GREY.size).shape == GREY.shape
    with pytest.raises(BadImage, match=r"announces 30 x 20 px, more than data.max_pixels \(599\)"):
        read_grey(path, GREY.size - 1)


WHOLE = {
    **announced(300, 200),
    "deep tiff": tiff(GREY.astype(np.uint16), orientation=3, extra=[2], no_data="-1"),
    "real jpeg": pillow_bytes(GREY, "JPEG"),
    "real webp": pillow_bytes(GREY, "WEBP", lossless=True),
}


@given(
    name=st.sampled_from(sorted(WHOLE)),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    length=st.integers(0, 400),
)
def test_no_header_makes_more_than_a_bad_image(name, changes, length):
    content = bytearray(WHOLE[name])
    for position, value in changes:
        content[position % len(content)] = value
    try:
        header = read_header(io.BytesIO(bytes(content[: length or None])))
    except BadHeader as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert header.width > 0 and header.height > 0
