"""`sdnet register`: the files in the folder, exit codes, georeferences, and files that are refused."""

import csv
import json
import os
import signal
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine, from_origin
from rasterio.warp import calculate_default_transform, reproject

from sdnet.cli.interruption import interruptible
from sdnet.files import alone_in
from sdnet.registration import command
from sdnet.registration.config import RegisterConfig
from sdnet.registration.files.reading import read_source
from sdnet.registration.files.warp import warp
from sdnet.registration.transform import transform_from_dict
from tests.unit.images.image_files import tiff
from tests.unit.register.geotiff import EDGE, SHIFT, write_geotiff

PICTURES = {"checkerboard.png", "flicker.png", "tie_points.png"}
ALWAYS = {"report.html", "tie_points.csv", "tie_points.geojson", "tie_points.png", "transform.json"}


def result(out: Path) -> dict:
    return json.loads((out / "transform.json").read_text())


def test_a_registered_pair_leaves_image_transform_tie_points_pictures_and_page(
    register, images, tmp_path
) -> None:
    code, said, _ = register(images / "optical.png", images / "sar.png", "-o", tmp_path / "out")
    assert code == 0 and "tie points agree" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == ALWAYS | PICTURES | {"warped.png"}
    facts = result(tmp_path / "out")
    assert facts["trusted"] and np.abs(np.array(facts["matrix"]) - SHIFT)[:2, 2].max() < 0.5
    rows = list(csv.DictReader((tmp_path / "out" / "tie_points.csv").open()))
    assert len(rows) == facts["tie_points"] > 20 and facts["held_out_median_px"] < 0.5
    shifts = [(float(r["sar_column"]) - float(r["optical_column"])) for r in rows if r["agrees"] == "1.0000"]
    assert np.median(shifts) == pytest.approx(9.25, abs=0.3) and len(shifts) == facts["agreeing"]
    warped, sar = (cv2.imread(str(path), 0) for path in (tmp_path / "out/warped.png", images / "sar.png"))
    assert np.corrcoef(warped[20:280, 20:280].ravel(), sar[14:274, 29:289].ravel())[0, 1] > 0.9


def test_a_16_bit_image_stays_16_bit(register, images, tmp_path) -> None:
    assert register(images / "optical.png", images / "sar16.png", "-o", tmp_path)[0] == 0
    warped = cv2.imread(str(tmp_path / "warped.png"), cv2.IMREAD_UNCHANGED)
    assert warped.dtype == np.uint16 and warped.shape == (EDGE, EDGE) and warped.max() > 255


def test_equal_input_gives_equal_files(register, images, tmp_path) -> None:
    found = []
    for out in ("a", "b"):
        register(images / "optical.png", images / "sar.png", "-o", tmp_path / out)
        found.append({path.name: path.read_bytes() for path in (tmp_path / out).iterdir()})
    assert found[0] == found[1]


def test_a_match_that_is_not_trusted_ends_with_3_and_removes_an_earlier_image(
    register, images, tmp_path
) -> None:
    register(images / "optical.png", images / "sar.png", "-o", tmp_path)
    code, _, error = register(images / "optical.png", images / "stranger.png", "-o", tmp_path)
    assert code == 3 and error.startswith("not trusted: ") and error.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == ALWAYS
    assert result(tmp_path)["trusted"] is False
    assert "not trusted" in (tmp_path / "report.html").read_text()


def test_geotiff_files_give_a_cloud_optimised_one_on_the_optical_grid(register, images, tmp_path) -> None:
    assert register(images / "optical.tif", images / "sar.tif", "-o", tmp_path)[0] == 0
    with rasterio.open(tmp_path / "warped.tif") as warped, rasterio.open(images / "optical.tif") as optical:
        assert warped.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (warped.crs, warped.transform, warped.shape) == (optical.crs, optical.transform, optical.shape)
        assert warped.nodata == 0 and (warped.read(1)[:, :20] == 0).all()
    matrix = np.array(result(tmp_path)["matrix"])
    assert np.abs(matrix[:2, 2] - [9.25 - 40, -6.5]).max() < 0.6
    [longitude, latitude] = json.loads((tmp_path / "tie_points.geojson").read_text())["features"][0][
        "geometry"
    ]["coordinates"]
    assert -118 < longitude < -116 and 36 < latitude < 36.5


def test_colour_floats_are_written_without_loss(register, images, tmp_path) -> None:
    radar = cv2.imread(str(images / "sar.png"), 0).astype(np.float32) / 255 - 0.5
    (tmp_path / "sar.tif").write_bytes(tiff(np.dstack([radar, radar, radar])))
    assert register(images / "optical.png", tmp_path / "sar.tif", "-o", tmp_path / "out")[0] == 0
    written = cv2.imread(str(tmp_path / "out" / "warped.tif"), cv2.IMREAD_UNCHANGED)
    transform = transform_from_dict(result(tmp_path / "out"))
    np.testing.assert_array_equal(written[:, :, 0], warp(radar, transform, (EDGE, EDGE)))


def test_another_coordinate_system_is_reprojected_and_recorded(register, images, tmp_path) -> None:
    with rasterio.open(images / "sar.tif") as file:
        corner, columns, rows = calculate_default_transform(
            file.crs, "EPSG:4326", file.width, file.height, *file.bounds
        )
        pixels = np.zeros((rows, columns), np.uint8)
        reproject(
            file.read(1),
            pixels,
            src_transform=file.transform,
            src_crs=file.crs,
            dst_transform=corner,
            dst_crs="EPSG:4326",
        )
    write_geotiff(tmp_path / "degrees.tif", pixels, corner, "EPSG:4326")
    assert register(images / "optical.tif", tmp_path / "degrees.tif", "-o", tmp_path / "out")[0] == 0
    assert result(tmp_path / "out")["sar_reprojected"] is True


def test_images_that_do_not_overlap_are_refused(register, images, tmp_path) -> None:
    write_geotiff(
        tmp_path / "far.tif", cv2.imread(str(images / "sar.png"), 0), from_origin(900_000, 4_000_000, 10, 10)
    )
    code, _, error = register(images / "optical.tif", tmp_path / "far.tif", "-o", tmp_path / "out")
    assert code == 2 and "far.tif does not overlap" in error and not (tmp_path / "out").exists()


def test_the_same_image_twice_is_refused_because_it_matches_itself(register, images, tmp_path) -> None:
    cv2.imwrite(str(tmp_path / "copy.tif"), cv2.imread(str(images / "sar.png"), cv2.IMREAD_UNCHANGED))
    code, _, said = register(images / "sar.png", tmp_path / "copy.tif", "-o", tmp_path / "out")
    assert code == 2 and f"copy.tif is the same image as {images / 'sar.png'}; give an optical" in said
    assert not (tmp_path / "out").exists()


def test_one_georeference_alone_is_refused(register, images, tmp_path) -> None:
    code, _, error = register(images / "optical.tif", images / "sar.png", "-o", tmp_path / "out")
    assert code == 2 and "sar.png has no georeference" in error


def test_a_geotiff_without_rasterio_is_refused_with_what_to_install(
    register, images, tmp_path, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)
    code, _, error = register(images / "optical.tif", images / "sar.tif", "-o", tmp_path / "out")
    assert code == 2 and "pip install 'sdnet-orchestrator[geo]'" in error


def test_files_that_are_not_complete_images_are_refused_in_one_line(register, images, tmp_path) -> None:
    whole = (images / "sar.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.tif").write_bytes((images / "sar.tif").read_bytes()[:3000])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    cv2.imwrite(str(tmp_path / "small.png"), np.ones((90, 300), np.uint8))
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("cut.png", "cut.tif", "text.png", "empty.png", "small.png", "missing.png", "pipe.png", "."):
        code, _, error = register(images / "optical.png", tmp_path / name, "-o", tmp_path / "out")
        assert (code, error.count("\n")) == (2, 1) and error.startswith(f"error: {tmp_path / name} "), error


@pytest.mark.parametrize("corner", [Affine(0, 0, 5, 0, 0, 5), Affine(np.nan, 0, 5, 0, -1, 5)])
def test_a_geotransform_that_places_no_pixel_is_refused(register, images, tmp_path, corner) -> None:
    write_geotiff(tmp_path / "flat.tif", cv2.imread(str(images / "sar.png"), 0), corner)
    code, _, error = register(images / "optical.tif", tmp_path / "flat.tif", "-o", tmp_path / "out")
    assert code == 2 and "flat.tif has the geotransform [" in error, error


def test_a_geotiff_with_a_palette_is_refused_because_its_pixels_are_no_grey_values(
    register, images, tmp_path
) -> None:
    with rasterio.open(images / "sar.tif") as file:
        pixels, profile = file.read(), file.profile
    with rasterio.open(tmp_path / "map.tif", "w", **{**profile, "photometric": "palette"}) as file:
        file.write(pixels)
        file.write_colormap(1, {value: (255 - value, 0, value, 255) for value in range(256)})
    code, _, error = register(images / "optical.tif", tmp_path / "map.tif", "-o", tmp_path / "out")
    assert (
        code == 2
        and "map.tif is a GeoTIFF with a palette; convert it with gdal_translate -expand rgb" in error
    )


def test_a_sparse_file_is_refused_before_its_gigabytes_are_read(register, images, tmp_path) -> None:
    sparse = tmp_path / "sparse.png"
    sparse.write_bytes((images / "sar.png").read_bytes())
    os.truncate(sparse, 1 << 40)
    code, _, error = register(images / "optical.png", sparse, "-o", tmp_path / "out")
    assert code == 2 and f"sparse.png is a file of {1 << 40} bytes, more than" in error, error


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--model", "spline", 'model is "spline"; it must be one of translation, affine'),
        ("--search", "far", 'search is "far"; it must be one of near, wide'),
        ("--checkpoint", "nowhere.ckpt", "nowhere.ckpt is not there"),
    ],
)
def test_a_wrong_option_is_refused(register, images, tmp_path, option, value, message) -> None:
    code, _, error = register(
        images / "optical.png", images / "sar.png", "-o", tmp_path / "out", option, value
    )
    assert code == 2 and message in error


def test_a_folder_that_cannot_be_written_is_refused_before_the_search(register, images, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    code, _, error = register(images / "optical.png", images / "sar.png", "-o", tmp_path / "file")
    assert code == 2 and "cannot be written" in error


def test_a_second_process_in_one_folder_is_refused_and_what_a_killed_one_left_is_removed(
    register, images, tmp_path
) -> None:
    left = [".warped.tif.123.tif", ".warped.tif.0123456789ab.ovr.tmp", ".transform.json.0123456789ab"]
    for name in (*left, ".mine"):
        (tmp_path / name).touch()
    arguments = images / "optical.png", images / "stranger.png", "-o", tmp_path
    with alone_in(tmp_path):
        code, _, error = register(*arguments)
    assert code == 2 and f"another process is working in {tmp_path}; wait until it ends" in error
    assert (tmp_path / left[0]).exists()
    assert register(*arguments)[0] == 3
    assert {path.name for path in tmp_path.glob(".*")} == {".mine"}


def test_an_interrupted_registration_leaves_no_empty_folder(register, images, tmp_path, monkeypatch) -> None:
    def interrupted(*arguments: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(command, "register_images", interrupted)
    with pytest.raises(KeyboardInterrupt), interruptible():
        command.register_files(images / "optical.png", images / "sar.png", tmp_path / "out", RegisterConfig())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["warped.png", "warped.tif", "flicker.png", "transform.json"])
def test_an_input_under_the_name_of_a_result_is_refused_and_stays(register, images, tmp_path, name) -> None:
    whole = (images / "sar.png").read_bytes()
    (tmp_path / name).write_bytes(whole)
    (tmp_path / "link.png").symlink_to(tmp_path / name)
    for inputs in ((images / "optical.png", tmp_path / name), (tmp_path / "link.png", images / "sar.png")):
        code, _, error = register(*inputs, "-o", tmp_path)
        assert (code, error.count("\n")) == (2, 1) and f"its result {tmp_path / name};" in error, error
    assert {path.name for path in tmp_path.iterdir()} == {name, "link.png"}
    assert (tmp_path / name).read_bytes() == whole


def test_a_checkpoint_under_the_name_of_a_result_is_refused(register, images, tmp_path) -> None:
    (tmp_path / "transform.json").touch()
    code, _, error = register(
        images / "optical.png",
        images / "sar.png",
        "-o",
        tmp_path,
        "--checkpoint",
        tmp_path / "transform.json",
    )
    assert code == 2 and "transform.json is an input" in error


def test_colour_is_read_with_red_first(tmp_path) -> None:
    pixels = np.zeros((128, 128, 3), np.uint8)
    pixels[:, :, 2] = 200  # OpenCV's red
    cv2.imwrite(str(tmp_path / "red.png"), pixels)
    source = read_source(tmp_path / "red.png")
    assert source.pixels[0, 0].tolist() == [200, 0, 0] and source.image.grey[0, 0] == 60
