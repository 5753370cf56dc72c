"""Reads a GeoTIFF with its georeference, and writes cloud-optimised GeoTIFFs. Needs rasterio."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdnet.errors import InputError, shown
from sdnet.images.decode import undeclared_no_data
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
    try:
        with _utf8_path(path) as name, rasterio.open(name) as opened:
            _refuse_unplaced(path, opened)
            bands = _bands(path, opened)
            if crs is None or opened.crs == (wanted := rasterio.crs.CRS.from_wkt(crs)):
                return _read(path, opened, bands, reprojected=False)
            for one in (opened.crs, wanted):
                _refuse_local(path, one)
            return _reprojected(path, opened, bands, crs)
    except rasterio.errors.RasterioError as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path} cannot be read ({reason}); copy the file again") from None


def _refuse_unplaced(path: Path, opened: Any) -> None:
    if opened.crs is not None:
        return
    if opened.gcps[0]:  # such as Sentinel-1 GRD: GDAL reads no coordinate system for its pixels
        raise InputError(f"{path} has only ground control points; warp it onto a map grid with gdalwarp")
    raise InputError(f"{path} has geo keys but no coordinate system; set one with rio edit-info")


def _refuse_local(path: Path, crs: Any) -> None:
    """Between a local system and another one there is no conversion: rasterio raises a private class."""
    if not _is_on_earth(crs):
        raise InputError(
            f"{path} cannot be reprojected: {shown(crs.to_string())} is a local coordinate system; "
            "set a common one in both images with rio edit-info"
        )


def _is_on_earth(crs: Any) -> bool:
    return bool(crs.is_geographic or crs.is_projected)


def _bands(path: Path, opened: Any) -> list[int]:
    """The numbers of the bands to read: one, or red, green and blue. Alpha is only part of the mask."""
    meanings = [meaning.name for meaning in opened.colorinterp]
    if meanings[0] == "palette":
        raise InputError(f"{path} is a GeoTIFF with a palette; convert it with gdal_translate -expand rgb")
    if meanings[:3] == ["red", "green", "blue"] and len(meanings) == 4:  # as for a plain TIFF
        return [1, 2, 3]
    bands = [number for number, meaning in enumerate(meanings, start=1) if meaning != "alpha"]
    order = [meanings[number - 1] for number in bands]
    if {"red", "green", "blue"} <= set(order) and order[:3] != ["red", "green", "blue"]:
        raise InputError(
            f"{path} is a GeoTIFF whose bands are {', '.join(order)}; reorder them to red, green, blue, such as with "
            "gdal_translate -b 3 -b 2 -b 1"
        )
    if len(bands) not in (1, 3):
        raise InputError(
            f"{path} is a GeoTIFF of {len(bands)} bands; give 1 (grey, such as one polarisation) or 3 (RGB), "
            "such as with gdal_translate -b 1"
        )
    return bands


def _reprojected(
    path: Path, opened: Any, bands: list[int], crs: str
) -> tuple[np.ndarray, np.ndarray, Georeference]:
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT

    # Interpolation would mix empty pixels into their neighbours.
    empty = undeclared_no_data(opened.read(bands)) if opened.nodata is None else None
    named = {} if empty is None else {"src_nodata": empty, "nodata": empty}
    try:
        warped = WarpedVRT(opened, crs=crs, resampling=Resampling.bilinear, add_alpha=False, **named)
    except Exception as error:  # noqa: BLE001  rasterio has no public class for errors of GDAL
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{path} cannot be reprojected ({reason}); correct its georeference with rio edit-info"
        ) from None
    with warped:
        return _read(path, warped, bands, reprojected=True)


def _read(
    path: Path, opened: Any, bands: list[int], *, reprojected: bool
) -> tuple[np.ndarray, np.ndarray, Georeference]:
    corner = np.array(opened.transform, np.float64).reshape(3, 3)
    if not np.isfinite(corner).all() or np.linalg.det(corner) == 0:
        numbers = [float(number) for number in corner.ravel()[:6]]
        raise InputError(
            f"{path} has the geotransform {numbers}, which is not usable; set one with rio edit-info"
        )
    pixels = opened.read(bands)
    valid = opened.dataset_mask() > 0
    valid &= np.isfinite(pixels).all(axis=0)
    no_data = opened.nodata
    if no_data is None and (no_data := undeclared_no_data(pixels)) is not None:
        valid &= (pixels != no_data).any(axis=0)
    geo = Georeference(opened.crs.to_wkt(), corner, no_data, reprojected)
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
        with _utf8_path(temporary) as name, rasterio.open(name, "w", **profile) as file:
            file.write(bands)
        temporary.replace(path)
    except rasterio.errors.RasterioError as error:
        raise OSError(f"{path} could not be written ({error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def degrees(geo: Georeference, points: np.ndarray) -> np.ndarray | None:
    """Longitude and latitude (WGS 84), float64 [N, 2], of points [N, 2], (row, column).

    None for a local coordinate system, and for points that their projection does not map.
    """
    from rasterio.crs import CRS
    from rasterio.warp import transform

    if not _is_on_earth(CRS.from_wkt(geo.crs)):
        return None
    x, y = geo.world(points).T
    try:
        found = transform(geo.crs, "EPSG:4326", x, y)
    except Exception:  # noqa: BLE001  as above; the search is done, so go on without degrees
        return None
    places = np.column_stack(found).reshape(-1, 2)
    return places if np.isfinite(places).all() else None


@contextmanager
def _utf8_path(path: Path) -> Iterator[Path]:
    """The full path, or one that leads there through links where it is not UTF-8: rasterio refuses that.

    Full, because rasterio takes a name such as `http:` or `zip:x.tif` for an address.
    """
    path = path.absolute()
    if _is_utf8(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        links = Path(folder) / "links"
        if _is_utf8(path.name):
            links.symlink_to(path.parent)
            yield links / path.name
            return
        links.mkdir()
        # GDAL also reads files beside the image, such as masks in `<name>.msk`.
        for beside in path.parent.iterdir():
            if beside.name.startswith(path.name):
                (links / f"image{beside.name[len(path.name) :]}").symlink_to(beside)
        yield links / "image"


def _is_utf8(path: Path | str) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


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
