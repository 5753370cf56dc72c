"""Images become 8-bit grey pixels: as stored, the same on every host, or refused with the reason."""

import errno
import io
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from sdnet.images.decode import BadImage, read_grey, read_pair, stretch, undeclared_no_data
from tests.unit.images.image_files import COLOURS, GREY, LIMIT, RAMP, pillow_bytes, tiff, written


def test_rgb_becomes_grey_and_grey_stays_what_it_is(tmp_path, place):
    optical, sar = place
    np.testing.assert_array_equal(read_grey(written(tmp_path / "sar.png", sar), LIMIT), sar)
    colours = np.zeros((64, 64, 3), np.uint8)
    colours[:, :, 2] = 200  # red, in OpenCV's order
    # 0.299 * 200 is 59.8; decoders cut or round it.
    assert set(np.unique(read_grey(written(tmp_path / "rgb.png", colours), LIMIT))) <= {59, 60}


def test_a_missing_image_a_folder_and_a_text_are_bad_and_say_why(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "text.png").write_text("not an image", encoding="utf-8")
    for name, reason in (
        ("none.png", r"cannot be read \(No such file or directory\)"),
        ("folder.png", r"cannot be read \(Is a directory\)"),
        ("text.png", "is not a PNG, JPEG"),
    ):
        with pytest.raises(BadImage, match=reason):
            read_grey(tmp_path / name, LIMIT)


def test_a_pipe_named_like_an_image_is_bad_and_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(BadImage, match=r"a\.png: cannot be read \(Not a regular file\)"):
        read_grey(tmp_path / "a.png", LIMIT)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


GAMMA = png_chunk(b"gAMA", struct.pack(">I", 45455))


@pytest.mark.parametrize("chunks", [png_chunk(b"sRGB", b"\0"), GAMMA, GAMMA + png_chunk(b"sRGB", b"\0")])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_the_gamma_that_a_png_states_changes_no_grey(read, chunks, mode):
    plain = pillow_bytes(COLOURS, "PNG", mode)
    head = 8 + 25  # signature and header chunk
    np.testing.assert_array_equal(read(plain[:head] + chunks + plain[head:]), read(plain))


@pytest.mark.parametrize(
    ("kind", "body"),
    [(b"sBIT", b"\x10"), (b"pHYs", bytes(3)), (b"bKGD", bytes(6)), (b"tIME", bytes(7)), (b"eXIf", b"xx")],
)  # fmt: skip
def test_an_invalid_remark_in_a_png_changes_no_grey_and_prints_nothing(read, place, capfd, kind, body):
    plain = cv2.imencode(".png", place[0])[1].tobytes()
    np.testing.assert_array_equal(read(plain[:33] + png_chunk(kind, body) + plain[33:]), place[0])
    assert capfd.readouterr() == ("", "")


def test_an_animated_png_is_bad(read):
    frames = [Pillow.fromarray(GREY), Pillow.fromarray(255 - GREY)]
    file = io.BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    with pytest.raises(BadImage, match="is an animated PNG; write a plain one"):
        read(file.getvalue())


def test_unavailable_storage_does_not_make_an_image_bad(monkeypatch, tmp_path):
    def stale(path: Path) -> BinaryIO:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr("sdnet.images.decode.open_regular", stale)
    with pytest.raises(OSError, match="Stale file handle"):
        read_grey(tmp_path / "image.png", LIMIT)


def test_partners_of_different_size_are_bad(tmp_path, place):
    optical = written(tmp_path / "optical.png", place[0])
    sar = written(tmp_path / "sar.png", place[1][:, :200])
    with pytest.raises(BadImage, match="is 200 x 256 px, its optical partner 256 x 256 px"):
        read_pair(optical, sar, LIMIT)


def test_an_image_that_is_its_own_partner_is_bad_unless_it_is_black(tmp_path, place):
    optical = written(tmp_path / "optical.png", place[0])
    sar = written(tmp_path / "sar.tif", place[0])
    with pytest.raises(BadImage, match="is the same image as its optical partner"):
        read_pair(optical, sar, LIMIT)
    black = written(tmp_path / "black.png", np.zeros_like(place[0]))
    assert not np.any(read_pair(black, black, LIMIT))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("image", [GREY, COLOURS], ids=["grey", "RGB"])
def test_orientation_tags_turn_no_image_against_its_partner(read, orientation, file_format, image):
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    as_stored = read(pillow_bytes(image, file_format))
    np.testing.assert_array_equal(read(pillow_bytes(image, file_format, exif=exif)), as_stored)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_orientation_is_ignored_in_tiffs_of_every_depth_and_byte_order(read, order, dtype):
    image = GREY.astype(dtype)
    np.testing.assert_array_equal(read(tiff(image, order=order, orientation=6)), read(tiff(image)))


@pytest.mark.parametrize("mode, levels", [("1", {0, 255}), ("P", None)])
@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_images_of_one_bit_and_of_a_palette_have_the_grey_of_their_colours(read, mode, levels, file_format):
    image = read(pillow_bytes(COLOURS, file_format, mode))
    expected = np.asarray(Pillow.fromarray(COLOURS).convert(mode).convert("L"), np.int16)
    assert np.abs(image - expected).max() <= 1  # decoders cut or round
    assert levels is None or set(np.unique(image)) == levels


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
@pytest.mark.parametrize("image", [GREY, COLOURS], ids=["grey", "RGB"])
def test_alpha_is_ignored(read, file_format, image):
    with_alpha = np.dstack([image, 255 - GREY])
    np.testing.assert_array_equal(
        read(pillow_bytes(with_alpha, file_format)), read(pillow_bytes(image, file_format))
    )


DEEP = {
    "uint16": (RAMP * 100).astype(np.uint16),
    "int16 below 0": (RAMP * 100 - 30000).astype(np.int16),
    "int32": (RAMP * 1000 - 7).astype(np.int32),
    "float32": (RAMP / 7e5 - 1e-4).astype(np.float32),
    "float64": RAMP * 1e9,
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("image", DEEP.values(), ids=DEEP)
def test_deep_samples_are_stretched_from_the_1st_to_the_99th_percentile(read, image, order):
    grey = read(tiff(image, order=order))
    assert grey[0, 0] == 0 and grey[-1, -1] == 255 and len(np.unique(grey)) == 256
    assert (np.diff(grey.reshape(-1).astype(int)) >= 0).all()
    low, high = 5, 600 - 1 - 5
    expected = np.rint(np.clip((RAMP - low) / (high - low), 0, 1) * 255)
    assert np.abs(grey - expected).max() <= 1


def test_16_bits_mean_the_same_in_png_and_tiff_and_levels_are_kept(read):
    image = (6500 + RAMP % 100).astype(np.uint16)
    from_tiff = read(tiff(image))
    np.testing.assert_array_equal(read(cv2.imencode(".png", image)[1].tobytes()), from_tiff)
    assert len(np.unique(from_tiff)) == 100  # the upper 8 bits have two


@pytest.mark.parametrize("photometric, extra", [(2, ()), (1, (0, 0))], ids=["RGB", "as GDAL writes it"])
def test_three_deep_bands_are_red_green_and_blue(read, photometric, extra):
    deep = COLOURS.astype(np.uint16) * 200
    grey = deep @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_array_equal(read(tiff(deep, photometric=photometric, extra=extra)), stretch(grey))
    with_alpha = np.dstack([deep, RAMP.astype(np.uint16)])
    np.testing.assert_array_equal(read(tiff(with_alpha, extra=(2,))), stretch(grey))
    np.testing.assert_array_equal(read(cv2.imencode(".png", deep[:, :, ::-1])[1].tobytes()), stretch(grey))


@pytest.mark.parametrize("marks", [(np.nan,), (np.inf, -np.inf), (-3.4028235e38,), (-9999.0,)])
def test_pixels_without_data_are_black_and_do_not_count(read, marks):
    image = (RAMP / 10 + 5).astype(np.float32)
    whole = read(tiff(image))
    holed = np.vstack([np.resize(np.float32(marks), (20, 30)), image])
    grey = read(tiff(holed, no_data="-9999"))
    assert grey[:20].max() == 0
    np.testing.assert_array_equal(grey[20:], whole)


@pytest.mark.parametrize(
    ("kind", "mark"), [(np.float32, -9999), (np.float64, -32767), (np.int16, -32768), (np.int32, -9999)]
)
def test_a_usual_value_of_missing_data_needs_no_declaration_where_it_fills_a_part(read, kind, mark):
    image = (RAMP - 300).astype(kind)
    grey = read(tiff(np.vstack([np.full((20, 30), mark, kind), image])))
    assert grey[:20].max() == 0
    np.testing.assert_array_equal(grey[20:], read(tiff(image)))


@pytest.mark.parametrize("lowest", [-9998, -30])
def test_the_lowest_value_of_an_image_is_data_unless_it_is_a_usual_mark(lowest):
    image = np.vstack([np.full((20, 30), lowest), RAMP - 30 + 1]).astype(np.float32)
    assert undeclared_no_data(image) is None
    few = np.resize(RAMP, (100, 100)).astype(np.float32)
    few[0, :9] = -9999
    assert undeclared_no_data(few) is None
    few[0, 9] = -9999
    assert undeclared_no_data(few) == -9999


@pytest.mark.parametrize("maxval", [15, 100, 254])
def test_a_pnm_whose_greatest_value_is_not_255_is_stretched_whether_it_is_text_or_binary(read, maxval):
    image = (RAMP % (maxval + 1)).astype(np.uint8)
    binary = read(b"P5 30 20 %d\n" % maxval + image.tobytes())
    np.testing.assert_array_equal(binary, stretch(image))
    text = read(b"P2 30 20 %d\n" % maxval + b" ".join(b"%d" % value for value in image.reshape(-1)) + b"\n")
    assert np.abs(text.astype(int) - binary).max() <= 1  # the decoder rounds text to 8 bits first
    colours = read(b"P6 30 20 %d\n" % maxval + np.repeat(image, 3).tobytes())
    np.testing.assert_array_equal(colours, binary)
    np.testing.assert_array_equal(read(b"P5 30 20 255\n" + image.tobytes()), image)


def test_a_signalling_nan_is_no_measurement_and_no_warning(read):
    image = (RAMP + 1).astype(np.float32)
    image[0, 0] = np.array([0x7FA00000], np.uint32).view(np.float32)[0]
    grey = read(tiff(image))
    assert grey[0, 0] == 0 and grey[-1, -1] == 255


def test_a_deep_image_of_one_value_or_of_none_is_constant(read):
    assert read(tiff(np.full((20, 30), 7, np.uint16))).max() == 0
    assert read(tiff(np.full((20, 30), np.nan, np.float32))).max() == 0


def test_an_image_whose_percentiles_are_equal_is_stretched_from_its_lowest_to_its_highest_value():
    image = np.zeros((100, 100), np.uint16)
    image[50, 50], image[60, 60] = 1000, 500
    assert sorted(np.unique(stretch(image))) == [0, 128, 255]


@given(
    values=st.lists(
        st.floats(-(2.0**66), 2.0**66, width=32) | st.sampled_from([np.nan, np.inf, -np.inf, 3e38]),
        min_size=1,
        max_size=50,
    ),
    factor=st.sampled_from([0.5, 2.0, 1024.0]),
)
def test_stretching_keeps_order_and_does_not_depend_on_the_unit(values, factor):
    image = np.array([values], np.float32)
    grey = stretch(image)
    measured = np.abs(image) < 1e30
    assert grey.shape == image.shape and not grey[~measured].any()
    in_order = grey[measured][np.argsort(image[measured], kind="stable")].astype(int)
    assert (np.diff(in_order) >= 0).all()
    other_unit = np.where(measured, image.astype(np.float64) * factor, np.nan)
    np.testing.assert_array_equal(stretch(other_unit), grey)
