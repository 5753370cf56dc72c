"""A truncated or damaged image is refused with the reason. Bytes after the end of an image change nothing."""

import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

from sdnet.images.decode import BadImage, read_grey
from sdnet.images.tiff_parts import CompressedParts
from tests.unit.images.image_files import COLOURS, GREY, LIMIT, pillow_bytes, tiff, written


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_image_is_bad_however_much_of_it_opencv_would_decode(tmp_path, place, suffix, share):
    path = written(tmp_path / f"image{suffix}", place[0])
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(BadImage) as refusal:
        read_grey(path, LIMIT)
    assert refusal.value.path == path and refusal.value.reason


def test_a_png_with_one_flipped_bit_is_bad(tmp_path, place):
    path = written(tmp_path / "image.png", place[0])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadImage, match=r"damaged PNG \(checksum of its IDAT chunk\)"):
        read_grey(path, LIMIT)


def test_a_truncated_file_is_bad_although_its_thumbnail_has_an_end_marker(read, place):
    whole = pillow_bytes(place[0], "JPEG")
    thumbnail = pillow_bytes(place[0][:32, :32], "JPEG")
    segment = b"\xff\xe1" + (2 + len(thumbnail)).to_bytes(2, "big") + thumbnail
    with_thumbnail = whole[:2] + segment + whole[2:]
    np.testing.assert_array_equal(read(with_thumbnail), read(whole))
    with pytest.raises(BadImage, match="is a truncated JPEG"):
        read(with_thumbnail[:-2000])


@pytest.mark.parametrize("behind", [b"\0" * 100, b"\xff\xd9" * 3, b"a second file \xff\xd8\xff\xe1"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 100}])
def test_bytes_behind_the_end_marker_of_a_jpeg_change_nothing(read, place, behind, options):
    whole = pillow_bytes(place[0], "JPEG", **options)
    np.testing.assert_array_equal(read(whole + behind), read(whole))


def test_a_text_pnm_may_end_without_a_line_end_but_not_without_a_pixel(read):
    pixels = np.arange(600, dtype=np.uint8).reshape(20, 30)
    text = b"P2 30 20 255\n" + b" ".join(b"%d" % value for value in pixels.reshape(-1))
    np.testing.assert_array_equal(read(text), pixels)
    with pytest.raises(BadImage, match="is not an image that OpenCV decodes"):
        read(text.rpartition(b" ")[0])


@pytest.mark.parametrize(
    ("head", "samples"), [(b"P4 30 20\n", 80), (b"P5 30 20 255\n", 600), (b"P6 30 20 65535\n", 3600)]
)
def test_a_binary_pnm_without_its_last_byte_is_truncated_and_not_filled_up(read, head, samples):
    whole = head + bytes(range(256)) * (samples // 256) + bytes(samples % 256)
    assert read(whole).shape == (20, 30)
    with pytest.raises(BadImage, match=rf"is a truncated PNM \({len(whole) - 1} of {len(whole)} bytes\)"):
        read(whole[:-1])


@pytest.mark.parametrize("kind", ["TIFF", "BMP", "WebP"])
def test_half_a_file_is_called_truncated_with_its_number_of_bytes(read, kind):
    content = tiff(GREY) if kind == "TIFF" else pillow_bytes(COLOURS, kind)
    with pytest.raises(
        BadImage, match=rf"is a truncated {kind} \({len(content) - 200} of {len(content)} bytes\)"
    ):
        read(content[:-200])


# Odd rows and no full last tile. Four bits of eight, because incompressible pixels are stored as they are.
ROWS = bytes(range(64))  # 8 of 8 bytes
NOISE = np.random.default_rng(0).integers(0, 16, (3, 150, 161), np.uint8) * 17
LAYOUTS: dict[str, Any] = {
    "strips": {"blockysize": 16}, "tiles": {"tiled": True, "blockxsize": 64, "blockysize": 64},
    "one strip": {"blockysize": 150}, "planes": {"interleave": "band"}, "BigTIFF": {"BIGTIFF": "YES"},
    "other byte order": {"ENDIANNESS": "BIG"}, "predictor": {"predictor": 2},
}  # fmt: skip


def compressed(pixels: np.ndarray, **options: Any) -> bytes:
    bands, height, width = pixels.shape
    with MemoryFile() as file:
        profile = {"driver": "GTiff", "height": height, "width": width, "count": bands, "dtype": "uint8"}
        profile["transform"] = from_origin(0, 0, 10, 10)
        with file.open(**profile, **options) as opened:
            opened.write(pixels)
        return file.read()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compression", ["lzw", "deflate", "packbits"])
@pytest.mark.parametrize("bands", [1, 3])
def test_an_8_bit_tiff_whose_tail_is_zeros_is_bad_and_the_whole_one_is_not(read, layout, compression, bands):
    content = compressed(NOISE[:bands], compress=compression, **LAYOUTS[layout])
    np.testing.assert_array_equal(
        read(content), cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    )
    tail = len(content) // 3
    with pytest.raises(BadImage, match=r"is a damaged TIFF \(a strip or tile cannot be decoded\)"):
        read(content[:-tail] + bytes(tail))


@pytest.mark.parametrize(
    ("strip", "is_whole"),
    [
        (zlib.compress(ROWS), True),
        (zlib.compress(ROWS) + b"more", True),
        (zlib.compress(ROWS)[:-4], True),  # some writers leave the checksum away
        (zlib.compress(ROWS)[:-4] + bytes(4), False),
        (zlib.compress(ROWS[:32]), False),
        (zlib.compress(b""), False),
    ],
)
def test_a_deflate_strip_needs_all_its_pixels_and_no_wrong_checksum(strip, is_whole):
    place = ((0,), (len(strip),))
    parts = CompressedParts(
        "<", 8, 1, row_bytes=8, across=1, rows=8, height=8, is_tiled=False, planes=(place,)
    )
    assert parts.are_whole(strip) == is_whole


@pytest.mark.parametrize("height", [1, 5])
def test_a_last_deflate_strip_that_is_padded_to_the_height_of_the_others_is_whole(height):
    wide = 1 << 16
    full = zlib.compress(bytes(4 * wide))
    number = -(-height // 4)
    planes = ((tuple(len(full) * strip for strip in range(number)), (len(full),) * number),)
    parts = CompressedParts(
        "<", 8, 1, row_bytes=wide, across=1, rows=min(4, height), height=height, is_tiled=False, planes=planes
    )
    assert parts.are_whole(full * number)
    assert not parts.are_whole(full * (number - 1) + full[:-1] + b"?")


@pytest.mark.parametrize("compression", ["lzw", "deflate", "packbits"])
def test_a_tiff_of_1_bit_whose_tail_is_zeros_is_bad(read, compression):
    content = compressed(np.repeat(NOISE[:1] // 128, 16, axis=2), compress=compression, NBITS=1)
    assert set(np.unique(read(content))) == {0, 255}
    with pytest.raises(BadImage, match="is a damaged TIFF"):
        read(content[:-900] + bytes(900))


def test_a_bmp_that_announces_a_wrong_size_of_its_file_is_read(read):
    content = pillow_bytes(GREY, "BMP")
    for size in (0, 1 << 30):
        np.testing.assert_array_equal(read(content[:2] + struct.pack("<I", size) + content[6:]), GREY)
