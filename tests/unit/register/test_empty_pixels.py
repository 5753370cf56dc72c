"""Pixels without data: how they are declared or recognised, and that they never reach a result."""

import cv2
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from sdnet.registration.files.reading import read_source
from sdnet.registration.images import image_from_array
from tests.unit.images.image_files import tiff
from tests.unit.register.geotiff import write_geotiff


@pytest.mark.parametrize("declared", [-9999, None])
def test_pixels_without_data_are_never_mixed_into_their_neighbours(
    register, images, tmp_path, declared
) -> None:
    radar = cv2.imread(str(images / "sar.png"), 0).astype(np.float32) / 25 - 20
    radar[200:230, 100:160] = -9999
    corner = from_origin(500_000, 4_000_000, 10, 10)
    write_geotiff(tmp_path / "sar.tif", radar, corner, nodata=declared)
    assert register(images / "optical.tif", tmp_path / "sar.tif", "-o", tmp_path / "out")[0] == 0
    with rasterio.open(tmp_path / "out" / "warped.tif") as file:
        warped = file.read(1)
        assert file.nodata == -9999 and 1800 < np.count_nonzero(warped[150:250, 50:200] == -9999) < 2500
    assert warped[warped != -9999].min() > -24 and warped.max() < -6


@pytest.mark.parametrize("crs", [None, "EPSG:4326"])
@pytest.mark.parametrize("kind", ["GeoTIFF", "TIFF", "array"])
def test_minus_9999_is_empty_where_no_value_for_empty_pixels_is_named(images, tmp_path, kind, crs) -> None:
    radar = cv2.imread(str(images / "sar.png"), 0).astype(np.float32) / 25 - 20
    radar[:, 200:] = -9999
    if kind == "GeoTIFF":
        write_geotiff(tmp_path / "sar.tif", radar, from_origin(500_000, 4_000_000, 10, 10), nodata=None)
    else:
        (tmp_path / "sar.tif").write_bytes(tiff(radar))
    wanted = crs and rasterio.crs.CRS.from_string(crs).to_wkt()
    image = image_from_array(radar) if kind == "array" else read_source(tmp_path / "sar.tif", wanted).image
    assert 0.4 < image.valid.mean() < 0.7 and np.ptp(image.grey[image.valid]) == 255
    assert len(np.unique(image.grey[image.valid])) > 100


def test_zeros_are_empty_in_a_geotiff_that_names_no_value_for_empty_pixels(images, tmp_path) -> None:
    radar = cv2.imread(str(images / "sar.png"), 0)
    radar[:, 200:] = 0
    write_geotiff(tmp_path / "sar.tif", radar, from_origin(500_000, 4_000_000, 10, 10), nodata=None)
    valid = read_source(tmp_path / "sar.tif").image.valid
    assert valid[5:-5, 5:200].all() and not valid[:, 200:].any()


def test_a_value_for_empty_pixels_that_the_samples_cannot_hold_is_not_used(
    register, images, tmp_path
) -> None:
    radar = cv2.imread(str(images / "sar.png"), 0)
    (tmp_path / "sar.tif").write_bytes(tiff(radar, no_data="-9999"))
    assert register(images / "optical.png", tmp_path / "sar.tif", "-o", tmp_path / "out")[0] == 0
    assert (cv2.imread(str(tmp_path / "out" / "warped.png"), 0)[:5] == 0).all()
