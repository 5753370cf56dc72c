"""Registers two files: reads them, uses their georeferences, and writes the folder of results."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from sdnet.errors import InputError
from sdnet.files import alone_in, made_folder, refuse_run
from sdnet.registration.config import Method, RegisterConfig
from sdnet.registration.files.georeference import initial_transform
from sdnet.registration.files.outputs import (
    refuse_results_as_inputs,
    remove_left_over,
    result_paths,
    write_outputs,
)
from sdnet.registration.files.reading import Source, read_source
from sdnet.registration.pipeline import register_images
from sdnet.registration.transform import IDENTITY, Transform

if TYPE_CHECKING:
    from sdnet.registration.matching.network import Network


def register_files(
    optical: Path,
    sar: Path,
    out: Path,
    config: RegisterConfig,
    net: "Network | None" = None,
    *,
    lock: bool = True,
) -> dict[str, Any]:
    """Register two image files into the folder `out`; returns the content of its transform.json.

    If both files are georeferenced, the search starts from their georeferences; a SAR image in another
    coordinate system is reprojected first. Without georeferences, the search starts with the first pixels
    aligned.
    lock: keeps other processes out of `out`. False where the caller does, as for the tasks of a cluster: a host
    that is cut off may hold the lock of its pair when another one takes the pair over.
    Raises InputError for files or a folder that cannot be used, for an image that is one of the results, and if
    another process registers into the folder. The same image twice is refused too: it matches itself.
    """
    cv2.setNumThreads(1)  # processes run in parallel already, and one thread gives a fixed order
    refuse_run(out)
    refuse_results_as_inputs((optical, sar), result_paths(out))
    first = read_source(optical)
    second = read_source(sar, None if first.geo is None else first.geo.crs)
    _refuse_one_image(first, second)
    start = _initial(first, second)
    with made_folder(out), alone_in(out) if lock else nullcontext():
        remove_left_over(out)
        found = register_images(first.image, second.image, config, net, start)
        origin = {} if net is None else net.origin
        return write_outputs(out, first, second, config, found, origin)


def _refuse_one_image(optical: Source, sar: Source) -> None:
    if np.array_equal(optical.pixels, sar.pixels) and optical.pixels.min() != optical.pixels.max():
        raise InputError(f"{sar.path} is the same image as {optical.path}; give an optical and a SAR image")


def _initial(optical: Source, sar: Source) -> Transform:
    if (optical.geo is None) != (sar.geo is None):
        with_one, without = (optical, sar) if sar.geo is None else (sar, optical)
        raise InputError(
            f"{without.path} has no georeference and {with_one.path} has one; "
            "give two GeoTIFF files, or two images without a georeference"
        )
    if optical.geo is None or sar.geo is None:
        return IDENTITY
    start = initial_transform(optical.geo, sar.geo)
    rows, columns = optical.image.shape
    corners = start.apply([[0, 0], [0, columns - 1], [rows - 1, 0], [rows - 1, columns - 1]])
    if (corners.max(axis=0) < 0).any() or (corners.min(axis=0) >= sar.image.shape).any():
        raise InputError(f"{sar.path} does not overlap {optical.path}; give images of one place")
    return start


def config_of(model: str, search: str, measure: str, with_network: bool, adapt: bool) -> RegisterConfig:
    """The configuration from command line options: both methods if there is a network. Raises InputError."""
    method: Method = "combined" if with_network else "templates"
    return RegisterConfig(model=model, search=search, measure=measure, method=method, adapt=adapt)  # type: ignore[arg-type]
