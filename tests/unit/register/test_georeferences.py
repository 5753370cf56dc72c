"""GeoTIFF files of every kind that users have: bands, local systems, control points, names that are not UTF-8."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.transform import Affine, from_origin

from sdnet.errors import InputError
from sdnet.registration.command import register_files
from sdnet.registration.config import RegisterConfig
from sdnet.registration.files.georeference import Georeference, degrees, read_geotiff, write_cog
from sdnet.registration.files.reading import read_source
from tests.made_pairs import pair

EDGE = 320
SHIFT = np.array([[1, 0, 9.25], [0, 1, -6.5], [0, 0, 1.0]])
CORNER = from_origin(500_000, 4_000_000, 10, 10)
LOCAL = 'LOCAL_CS["site",UNIT["metre",1]]'
UTM = "EPSG:32611"
NOISE = np.random.default_rng(1).integers(1, 255, (150, 160), np.uint8)


def write(path: Path, *bands: np.ndarray, crs: str = UTM, corner: Affine = CORNER, **options: object) -> Path:
    height, width = bands[0].shape
    shape = {"height": height, "width": width, "count": len(bands), "dtype": bands[0].dtype}
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=corner, **shape, **options) as file:
        file.write(np.stack(bands))
    return path


def test_bands_in_another_order_of_colours_are_refused(tmp_path) -> None:
    path = write(tmp_path / "x.tif", *[NOISE.astype(np.uint16)] * 3)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    with pytest.raises(InputError, match="whose bands are blue, green, red; reorder .* -b 3 -b 2 -b 1"):
        read_source(path)


@pytest.mark.parametrize("count", [2, 5, 13])
def test_bands_that_would_be_left_out_are_refused(tmp_path, count) -> None:
    path = write(tmp_path / "x.tif", *[NOISE.astype(np.uint16)] * count)
    with pytest.raises(
        InputError, match=f"x.tif is a GeoTIFF of {count} bands; give 1 .*gdal_translate -b 1"
    ):
        read_source(path)


def test_four_bands_that_are_not_rgb_and_alpha_are_refused(tmp_path) -> None:
    path = write(tmp_path / "x.tif", *[NOISE.astype(np.uint16)] * 4)
    with pytest.raises(InputError, match="of 4 bands"):
        read_source(path)
    path = write(tmp_path / "x.tif", NOISE, NOISE, NOISE, photometric="MINISBLACK", alpha="YES")
    with pytest.raises(InputError, match="of 2 bands"):
        read_source(path)


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("crs", [None, "EPSG:4326"])
def test_alpha_is_a_mask_and_no_colour(tmp_path, colours, crs) -> None:
    alpha = np.full_like(NOISE, 255)
    alpha[:40] = 0
    options = {"photometric": "RGB" if colours == 3 else "MINISBLACK", "alpha": "YES"}
    path = write(tmp_path / "x.tif", *[NOISE] * colours, alpha, **options)
    pixels, valid, _ = read_geotiff(path, crs and rasterio.crs.CRS.from_string(crs).to_wkt())
    assert pixels.shape[2:] == ((3,) if colours == 3 else ()) and 0.6 < valid.mean() < 0.8


def test_a_warped_image_of_three_bands_has_three_bands(tmp_path) -> None:
    optical, sar = pair(EDGE, SHIFT)
    write(tmp_path / "o.tif", optical)
    write(tmp_path / "s.tif", sar, sar // 2, sar // 3)
    facts = register_files(
        tmp_path / "o.tif", tmp_path / "s.tif", tmp_path / "out", RegisterConfig(measure="cfog")
    )
    assert facts["warped"] == "warped.tif"
    with rasterio.open(tmp_path / "out/warped.tif") as file:
        means = file.read().mean(axis=(1, 2))
    assert len(means) == 3 and means[0] > 1.8 * means[1] > 2.2 * means[2]


def test_control_points_without_a_grid_are_refused_with_gdalwarp(tmp_path) -> None:
    shape = {"height": 150, "width": 160, "count": 1, "dtype": "uint8"}
    with rasterio.open(tmp_path / "grd.tif", "w", driver="GTiff", **shape) as file:
        file.write(NOISE, 1)
        places = [(0, 0), (0, 160), (150, 0), (150, 160)]
        points = [GroundControlPoint(row, column, 10 * column, -10 * row) for row, column in places]
        file.gcps = points, rasterio.crs.CRS.from_string(UTM)
    with pytest.raises(InputError, match="grd.tif has only ground control points; .* gdalwarp"):
        read_source(tmp_path / "grd.tif")


@pytest.mark.parametrize(("optical", "sar"), [(UTM, LOCAL), (LOCAL, UTM)])
def test_a_local_system_beside_another_one_is_refused_in_one_line(tmp_path, optical, sar) -> None:
    first = read_geotiff(write(tmp_path / "o.tif", NOISE, crs=optical), None)[2]
    path = write(tmp_path / "s.tif", NOISE, crs=sar)
    with pytest.raises(InputError, match="s.tif cannot be reprojected: .*site.* rio edit-info") as caught:
        read_source(path, first.crs)
    assert "\n" not in str(caught.value)


def test_a_georeference_outside_its_projection_is_refused_in_one_line(tmp_path) -> None:
    path = write(tmp_path / "far.tif", NOISE, corner=from_origin(1e12, 1e12, 10, 10))
    with pytest.raises(InputError, match=r"far.tif cannot be reprojected \(.*\); correct its georeference"):
        read_source(path, rasterio.crs.CRS.from_epsg(4326).to_wkt())


def test_two_images_in_one_local_system_are_registered_and_their_points_are_in_pixels(tmp_path) -> None:
    optical, sar = pair(EDGE, SHIFT)
    first, second = (
        write(tmp_path / name, one, crs=LOCAL) for name, one in (("o.tif", optical), ("s.tif", sar))
    )
    facts = register_files(first, second, tmp_path / "out", RegisterConfig(measure="cfog"))
    assert facts["trusted"] and (tmp_path / "out/warped.tif").is_file()
    features = json.loads((tmp_path / "out/tie_points.geojson").read_text())["features"]
    for feature in features:
        values = feature["properties"]
        assert feature["geometry"]["coordinates"] == [values["optical_column"], values["optical_row"]]


def test_points_that_the_projection_does_not_map_have_no_degrees() -> None:
    wkt = rasterio.crs.CRS.from_string(UTM).to_wkt()
    far = Georeference(wkt, np.diag([1e30, 1e30, 1.0]), None)
    assert degrees(far, np.array([[5.0, 5.0]])) is None


@pytest.mark.parametrize("name", [b"x.tif", b"\xd6.tif", b"\xd6.\xd6"])
def test_a_path_that_is_not_utf8_is_read_and_written(tmp_path, name) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/gbk\xd6"))
    folder.mkdir()
    path = folder / os.fsdecode(name)
    whole = write(tmp_path / "x.tif", NOISE)
    mask = np.full_like(NOISE, 255)
    mask[:40] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(whole, "r+") as file:
        file.write_mask(mask)
    whole.rename(path)
    (tmp_path / "x.tif.msk").rename(folder / f"{path.name}.msk")  # a file beside the image
    pixels, valid, geo = read_geotiff(path, None)
    assert (pixels == NOISE).all() and not valid[:40].any() and valid[40:].all()
    write_cog(folder / "warped.tif", pixels, geo)
    assert {found.name for found in folder.iterdir()} == {path.name, f"{path.name}.msk", "warped.tif"}
    assert (read_geotiff(folder / "warped.tif", None)[0] == NOISE).all()


@pytest.mark.parametrize("name", ["http:", "zip:x.tif", "x!y.tif"])
def test_a_name_that_looks_like_an_address_is_that_of_a_file(tmp_path, monkeypatch, name) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("x.tif"), NOISE).rename(name)
    assert (read_source(Path(name)).pixels == NOISE).all()


def test_a_valid_scene_that_is_too_large_is_to_be_cut_into_parts(tmp_path):
    path = tmp_path / "scene.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=25000, height=17000, count=1, dtype="uint8", SPARSE_OK=True
    ):
        pass
    with pytest.raises(InputError) as refusal:
        read_source(path)
    assert str(refusal.value) == (
        f"{path} announces 25000 x 17000 px, more than 268435456 pixels; cut it into parts, "
        f"such as with gdal_translate -srcwin 0 0 8192 8192 {path} part.tif"
    )
