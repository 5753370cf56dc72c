"""Reads a GeoTIFF with its georeference, and writes cloud-optimised GeoTIFFs. Needs rasterio."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdnet.errors import InputError
from sdnet.registration.transform import Transform, affine


@dataclass(frozen=True, slots=True)
class Georeference:
    """The position of an image on the ground.

    crs: the coordinate system as WKT. corner: float64 [3, 3], maps (column, row, 1) to world (x, y, 1),
    where (0, 0) is the outer corner of the first pixel, as in GDAL. nodata: value of empty pixels.
    reprojected: the pixels are not those of the file, which has another coordinate system.
    """

    crs: str
    corner: np.ndarray
    nodata: float | None
    reprojected: bool = False

    @property
    def centre(self) -> np.ndarray:
        """`corner` for pixel centres: (0, 0) is the centre of the first pixel."""
        return self.corner @ np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])

    def world(self, points: np.ndarray) -> np.ndarray:
        """World coordinates float64 [N, 2], (x, y), of points [N, 2], (row, column)."""
        columns_first = np.column_stack([points[:, ::-1], np.ones(len(points))])
        return (columns_first @ self.centre.T)[:, :2]


def initial_transform(optical: Georeference, sar: Georeference) -> Transform:
    """Optical point to SAR point by the georeferences, which must have the same coordinate system."""
    return affine((np.linalg.inv(sar.centre) @ optical.centre)[:2])


def read_geotiff(path: Path, crs: str | None) -> tuple[np.ndarray, np.ndarray, Georeference]:
    """Pixels [H, W] or [H, W, 3], mask of those with data, georeference.

    crs: reproject (bilinear) to this system when the file has another one. Raises InputError.
    """
    rasterio = _rasterio(path)
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT

    try:
        with rasterio.open(path) as opened:
            if opened.crs is None:
                raise InputError(f"{path} has geo keys but no coordinate system; set one with rio edit-info")
            if crs is not None and opened.crs != rasterio.crs.CRS.from_wkt(crs):
                with WarpedVRT(opened, crs=crs, resampling=Resampling.bilinear, add_alpha=False) as warped:
                    return _read(path, warped, reprojected=True)
            return _read(path, opened, reprojected=False)
    except rasterio.errors.RasterioError as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path} cannot be read ({reason}); copy the file again") from None


def _read(path: Path, opened: Any, *, reprojected: bool) -> tuple[np.ndarray, np.ndarray, Georeference]:
    if opened.colorinterp[0].name == "palette":
        raise InputError(f"{path} is a GeoTIFF with a palette; convert it with gdal_translate -expand rgb")
    corner = np.array(opened.transform, np.float64).reshape(3, 3)
    if not np.isfinite(corner).all() or np.linalg.det(corner) == 0:
        numbers = [float(number) for number in corner.ravel()[:6]]
        raise InputError(
            f"{path} has the geotransform {numbers}, which is not usable; set one with rio edit-info"
        )
    bands = [1, 2, 3] if opened.count >= 3 else [1]
    pixels = opened.read(bands)
    valid = opened.dataset_mask() > 0
    valid &= np.isfinite(pixels).all(axis=0)
    geo = Georeference(opened.crs.to_wkt(), corner, opened.nodata, reprojected)
    return np.ascontiguousarray(np.moveaxis(pixels, 0, 2)) if len(bands) == 3 else pixels[0], valid, geo


def write_cog(path: Path, pixels: np.ndarray, geo: Georeference) -> None:
    """Write [H, W] or [H, W, C] as a cloud-optimised GeoTIFF: tiled, with overviews, lossless.

    Raises OSError when it cannot be written.
    """
    rasterio = _rasterio(path)
    bands = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)
    # Always set nodata: without it no reader can see that pixels outside the SAR image are empty.
    profile = {
        "driver": "COG", "dtype": pixels.dtype, "count": len(bands), "nodata": geo.nodata or 0,
        "height": pixels.shape[0], "width": pixels.shape[1], "crs": geo.crs,
        "transform": rasterio.Affine(*geo.corner.ravel()[:6]), "compress": "DEFLATE", "num_threads": 1,
    }  # fmt: skip
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tif")
    try:
        with rasterio.open(temporary, "w", **profile) as file:
            file.write(bands)
        temporary.replace(path)
    except rasterio.errors.RasterioError as error:
        raise OSError(f"{path} could not be written ({error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def degrees(geo: Georeference, points: np.ndarray) -> np.ndarray:
    """Longitude and latitude (WGS 84), float64 [N, 2], of points [N, 2], (row, column)."""
    from rasterio.warp import transform

    x, y = geo.world(points).T
    return np.column_stack(transform(geo.crs, "EPSG:4326", x, y)).reshape(-1, 2)


def _rasterio(path: Path) -> Any:
    try:
        import rasterio
        import rasterio.errors
    except ImportError:
        raise InputError(
            f"{path} is a GeoTIFF and rasterio is not installed; "
            "pip install 'sdnet-orchestrator[geo]', or give PNG files"
        ) from None
    return rasterio
