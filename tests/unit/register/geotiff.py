"""Writes a GeoTIFF of one band; and how the test images differ."""

from pathlib import Path

import numpy as np
import rasterio

EDGE = 320
SHIFT = np.array([[1, 0, 9.25], [0, 1, -6.5], [0, 0, 1.0]])
UTM = "EPSG:32611"


def write_geotiff(
    path: Path, pixels: np.ndarray, corner: object, crs: str = UTM, nodata: float | None = 0
) -> None:
    shape = {"height": pixels.shape[0], "width": pixels.shape[1], "count": 1, "dtype": pixels.dtype}
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=corner, nodata=nodata, **shape) as file:
        file.write(pixels, 1)
