"""The functions for Python programs: `sdnet.load`, `sdnet.describe`, `sdnet.match`, `sdnet.register`.

Images are arrays, grey [H, W] or R, G, B [H, W, 3], of 8 or 16 bit integers or floats. Points are
float64 [N, 2], (row, column), in pixels; whole numbers are pixel centres, the first pixel is (0, 0).
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from sdnet.errors import InputError, shown
from sdnet.measures import MEASURES
from sdnet.paths import refuse_deleted_folder, user_path
from sdnet.registration.config import FINE, Level, Model, RegisterConfig, Search, Sensor
from sdnet.registration.images import image_from_array
from sdnet.registration.matching.features import Descriptors, Features, Templates
from sdnet.registration.matching.search import search
from sdnet.registration.pipeline import Registration, register_images
from sdnet.registration.tie_points import TiePoints, points_from
from sdnet.registration.transform import IDENTITY, Transform

if TYPE_CHECKING:
    from sdnet.registration.matching.network import Network


def load(checkpoint: str | Path) -> "Network":
    """Load a trained SDNet from a checkpoint directory or a `.ckpt` file, also a published one.

    Sets MindSpore to GRAPH_MODE. Threads may share the network. Raises InputError if the path is no checkpoint.
    """
    if not isinstance(checkpoint, str | Path):
        raise InputError(f"checkpoint is of type {type(checkpoint).__name__}; give a path")
    path = user_path(str(checkpoint), "checkpoint")
    refuse_deleted_folder("MindSpore")
    import mindspore as ms

    from sdnet.registration.matching.network import Network

    ms.set_context(mode=ms.GRAPH_MODE)
    return Network.of_checkpoint(path)


def describe(net: "Network", image: np.ndarray, points: ArrayLike, sensor: Sensor = "optical") -> np.ndarray:
    """Descriptors of unit length, float32 [N, 128], of the 64 x 64 px around points of one image.

    points: [N, 2], (row, column); whole numbers are pixel centres. They are rounded to whole pixels, and a patch
    begins 32 px above and left of its point. Raises InputError for a point whose patch is not inside the image.
    """
    from sdnet.registration.matching.network import describe_points

    _check_net(net)
    return describe_points(net, image_from_array(image), points, sensor)


def match(
    optical: np.ndarray,
    sar: np.ndarray,
    points: ArrayLike | None = None,
    *,
    net: "Network | None" = None,
    measure: str = "cfog_mind",
    transform: Transform = IDENTITY,
    level: Level = FINE,
) -> TiePoints:
    """Find each optical point in the SAR image, near the position to which `transform` maps it.

    points: optical points [N, 2], (row, column); None chooses one in each block of the image.
    net: compare SDNet's descriptors (to about a pixel) instead of the channels of a hand-crafted measure.
    level: template, radius and resolution of the search. Outliers are not removed: the result also contains
    wrong tie points.
    Raises InputError for images, points or a measure that cannot be used.
    """
    config = RegisterConfig(measure=measure)  # refuses a measure that is not known
    if net is not None:
        _check_net(net)
    features: Features = Templates(MEASURES[config.measure]) if net is None else Descriptors(net)
    images = image_from_array(optical, name="optical"), image_from_array(sar, name="sar")
    _check_transform(transform, "transform")
    if not isinstance(level, Level):
        raise InputError(f"level is of type {type(level).__name__}; give a sdnet.registration.config.Level")
    return search(*images, transform, level, features, None if points is None else points_from(points))


def register(
    optical: np.ndarray,
    sar: np.ndarray,
    *,
    net: "Network | None" = None,
    model: Model = "affine",
    search: Search = "near",
    measure: str = "cfog_mind",
    adapt: bool = False,
    initial: Transform = IDENTITY,
) -> Registration:
    """Estimate the transform from the optical image to the SAR image.

    net: supports the coarse search; with `adapt` it gets the BatchNorm statistics of these images.
    model: translation, affine, homography or piecewise.
    search: `near` finds shifts to 72 px, `wide` to 200 px and any rotation.
    initial: the transform to start from. Check `verdict.trusted` before you use the transform.
    Raises InputError for images that cannot be used.
    """
    config = RegisterConfig(
        model=model,
        search=search,
        measure=measure,
        method="templates" if net is None else "combined",
        adapt=adapt,
    )
    images = image_from_array(optical, name="optical"), image_from_array(sar, name="sar")
    _check_transform(initial, "initial")
    if net is not None:
        _check_net(net)
    return register_images(*images, config, net, initial)


def _check_transform(given: Transform, name: str) -> None:
    if not isinstance(given, Transform):
        raise InputError(
            f"{name} is of type {type(given).__name__}; "
            "give a Transform, such as sdnet.registration.transform.affine(matrix[:2])"
        )
    matrix = np.asarray(given.matrix)
    usable = matrix.shape == (3, 3) and matrix.dtype == np.float64 and np.isfinite(matrix).all()
    if not usable or np.linalg.det(matrix) == 0:
        raise InputError(
            f"{name} has the matrix {shown(matrix.tolist())}; give an invertible one, float64 [3, 3]"
        )


def _check_net(net: object) -> None:
    """Refuse a path in place of a network. Asks for a method: importing the class would import MindSpore."""
    if not hasattr(net, "dense"):
        raise InputError(f"net is of type {type(net).__name__}; give what sdnet.load returns")
