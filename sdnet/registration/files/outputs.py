"""Writes the folder of results. Each file is written atomically, `transform.json` last."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np

from sdnet.errors import InputError
from sdnet.files import sweep, whole_file
from sdnet.paths import printable_path
from sdnet.registration.config import RegisterConfig
from sdnet.registration.files.figures import checkerboard, flicker, preview, tie_point_map
from sdnet.registration.files.georeference import Georeference, degrees, write_cog
from sdnet.registration.files.page import render_page
from sdnet.registration.files.reading import Source
from sdnet.registration.files.warp import warp
from sdnet.registration.fitting.robust import residuals
from sdnet.registration.images import image_from_array
from sdnet.registration.pipeline import Registration

RESULT = "transform.json"
_WARPED = ("warped.tif", "warped.png")
_NAMES = (
    RESULT, "report.html", *_WARPED, "tie_points.csv", "tie_points.geojson", "tie_points.png",
    "checkerboard.png", "flicker.png",
)  # fmt: skip
_COLUMNS = (
    "optical_row", "optical_column", "sar_row", "sar_column", "score", "second", "agrees", "residual_px",
    "held_out_px",
)  # fmt: skip


def result_paths(out: Path) -> list[Path]:
    """Every file that `write_outputs` writes or removes in `out`."""
    return [out / name for name in _NAMES]


def remove_left_over(out: Path) -> None:
    """Remove the temporary files of a killed process. A process that still writes in `out` would fail."""
    sweep(out, _NAMES)
    for left in out.glob(f".{_WARPED[0]}.*"):  # of `write_cog`, and what GDAL writes beside it
        if left.is_file():
            left.unlink(missing_ok=True)


def refuse_results_as_inputs(inputs: Iterable[Path], results: Iterable[Path]) -> None:
    """Raise InputError if an input is one of the results, also through a link: it would be deleted or replaced."""
    names = {_identity(path): path for path in results}
    names.pop(None, None)
    for path in inputs:
        identity = _identity(path)
        if identity in names:
            result = names[identity]
            raise InputError(
                f"{path} is an input, and register would replace it with its result {result}; "
                "give another folder with -o"
            )


def _identity(path: Path) -> tuple[int, int] | None:
    """What `os.path.samefile` compares; None for a path that leads to no file."""
    try:
        found = path.stat()
    except OSError:  # an input that is missing is refused when it is read
        return None
    return found.st_dev, found.st_ino


def write_outputs(
    out: Path,
    optical: Source,
    sar: Source,
    config: RegisterConfig,
    found: Registration,
    origin: Mapping[str, str],
) -> dict[str, object]:
    """Fill an existing folder, and return the content of transform.json.

    origin: what identifies the network, if there was one. An earlier result is deleted first, so that files of
    two runs are never mixed. A match that is not trusted gets no warped image.
    """
    for name in _NAMES:
        (out / name).unlink(missing_ok=True)
    facts = _facts(optical, sar, config, found) | dict(origin)
    table = _table(found)
    _write(out / "tie_points.csv", _csv(table))
    _write(out / "tie_points.geojson", _geojson(table, optical.geo))
    shape, view = optical.image.shape, preview(optical.image.grey)
    pictures = {"tie_points.png": _png(tie_point_map(view, shape, found.ties, found.inliers))}
    if found.transform is not None and found.verdict.trusted:
        empty = _empty_value(sar)
        warped = warp(sar.pixels, found.transform, shape, empty, sar.known)
        facts["warped"] = _write_warped(out, warped, optical.geo, empty)
        other = preview(image_from_array(warped, name="warped").grey)
        pictures |= {"checkerboard.png": _png(checkerboard(view, other)), "flicker.png": flicker(view, other)}
    for name, data in pictures.items():
        _write(out / name, data)
    _write(out / "report.html", render_page(facts, list(pictures)).encode())
    _write(out / RESULT, (json.dumps(facts, indent=1) + "\n").encode())
    return facts


def _facts(optical: Source, sar: Source, config: RegisterConfig, found: Registration) -> dict[str, object]:
    """The result without its tie points; also without times, so that equal input gives equal files."""
    held_out_px = found.held_out_px[found.inliers]
    facts: dict[str, object] = {
        "optical": printable_path(str(optical.path)),
        "sar": printable_path(str(sar.path)),
        "sar_reprojected": sar.geo is not None and sar.geo.reprojected,
        "trusted": found.verdict.trusted,
        "reason": found.verdict.reason,
        "evidence": round(found.verdict.evidence, 3),
        "search": config.search,
        "method": config.method,
        "measure": config.measure,
        "tie_points": len(found.ties),
        "agreeing": int(np.count_nonzero(found.inliers)),
        "held_out_median_px": _median(held_out_px),
        "held_out_rms_px": _rms(held_out_px),
        "convention": "matrix maps (column, row, 1) of the optical image to the SAR image; whole numbers "
        "are pixel centres, the first pixel is (0, 0)",
    }
    if config.adapt:
        facts["statistics"] = "images"
    return facts | (found.transform.as_dict() if found.transform is not None else {"model": config.model})


def _median(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return round(float(np.median(known)), 4) if known.size else None


def _rms(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return round(float(np.sqrt(np.mean(known**2))), 4) if known.size else None


def _table(found: Registration) -> np.ndarray:
    """One row per tie point, in the order of `_COLUMNS`."""
    ties = found.ties
    unknown = np.full(len(ties), np.nan)
    missing = unknown if found.transform is None else residuals(ties, found.transform)
    columns = (ties.optical, ties.sar, ties.score, ties.second, found.inliers, missing, found.held_out_px)
    return np.column_stack(columns)


def _csv(table: np.ndarray) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(["" if np.isnan(value) else f"{value:.4f}" for value in row] for row in table)
    return text.getvalue().encode()


def _geojson(table: np.ndarray, geo: Georeference | None) -> bytes:
    """Points in degrees (WGS 84) where the optical image has a place on the earth, else in (column, row)."""
    places = None if geo is None else degrees(geo, table[:, :2])
    if places is None:
        places = table[:, 1::-1]
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [round(float(value), 7) for value in place]},
            "properties": {
                name: None if np.isnan(value) else round(float(value), 4)
                for name, value in zip(_COLUMNS, row, strict=True)
            },
        }
        for place, row in zip(places, table, strict=True)
    ]
    collection = {"type": "FeatureCollection", "features": features}
    return (json.dumps(collection) + "\n").encode()


def _empty_value(sar: Source) -> float:
    """The file's own no-data value, else 0; also 0 if the sample type cannot hold that value."""
    if sar.nodata is None:
        return 0.0
    if sar.pixels.dtype.kind == "f":
        return sar.nodata
    limits = np.iinfo(sar.pixels.dtype)
    return sar.nodata if limits.min <= sar.nodata <= limits.max else 0.0


def _write_warped(out: Path, warped: np.ndarray, geo: Georeference | None, empty: float) -> str:
    """A cloud-optimised GeoTIFF on the optical grid, else a PNG, or a TIFF for floats; returns its name."""
    if geo is not None:
        write_cog(out / _WARPED[0], warped, Georeference(geo.crs, geo.corner, empty))
        return _WARPED[0]
    name = _WARPED[1] if warped.dtype in (np.uint8, np.uint16) else _WARPED[0]
    stored = warped if warped.ndim == 2 else np.ascontiguousarray(warped[:, :, ::-1])
    # Otherwise OpenCV stores colour floats lossily, and negative ones as 0.
    lossless = (cv2.IMWRITE_TIFF_COMPRESSION, cv2.IMWRITE_TIFF_COMPRESSION_ADOBE_DEFLATE)
    encoded, data = cv2.imencode(Path(name).suffix, stored, lossless)
    if not encoded:
        raise InputError(f"{out / name} cannot be encoded as {warped.dtype}; give 8 or 16 bit images")
    _write(out / name, data.tobytes())
    return name


def _png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def _write(path: Path, data: bytes) -> None:
    with whole_file(path) as file:
        file.write(data)
