"""Configuration of a registration: the levels of the search, and what the user chooses."""

from dataclasses import dataclass
from typing import Literal

from sdnet.errors import InputError, shown
from sdnet.measures import MEASURES

Sensor = Literal["optical", "sar"]
Model = Literal["translation", "affine", "homography", "piecewise"]
Search = Literal["near", "wide"]
Method = Literal["templates", "network", "combined"]
MODELS: tuple[Model, ...] = ("translation", "affine", "homography", "piecewise")
SEARCHES: tuple[Search, ...] = ("near", "wide")
SENSORS: tuple[Sensor, Sensor] = ("optical", "sar")
METHODS: tuple[Method, ...] = ("templates", "network", "combined")


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """One pass over the images; lengths are pixels of the optical image.

    halvings: how often both images are halved first.
    template_px: edge of the compared square.
    radius_px: largest distance from the predicted position, in rows and in columns.
    tolerance_px: tie points farther from the fitted model are outliers.
    points: approximate number of points, spread over the image.
    """

    halvings: int
    template_px: int
    radius_px: int
    tolerance_px: float
    points: int


COARSE = Level(halvings=1, template_px=192, radius_px=72, tolerance_px=8.0, points=64)
FINE = Level(halvings=0, template_px=96, radius_px=12, tolerance_px=8.0, points=144)
# Near the fine result, peaks are close to whole offsets, where a parabola has the least bias.
LAST = Level(halvings=0, template_px=96, radius_px=6, tolerance_px=4.0, points=196)
# SDNet sees 64 px at once and costs more than a template.
NETWORK_COARSE = Level(halvings=0, template_px=128, radius_px=72, tolerance_px=8.0, points=36)
NETWORK_FINE = Level(halvings=0, template_px=128, radius_px=16, tolerance_px=8.0, points=64)


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisterConfig:
    """What the user chooses.

    model: of the transform.
    search: `near` finds shifts to 72 px and rotations to about 5 degrees; `wide` finds shifts to 200 px and any
    rotation.
    method: `templates` needs no network; `network` uses SDNet alone; `combined` uses both in the coarse search
    and templates in the fine one.
    measure: of the templates.
    adapt: give the network the BatchNorm statistics of the two images.
    """

    model: Model = "affine"
    search: Search = "near"
    method: Method = "templates"
    measure: str = "cfog_mind"
    adapt: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (
            ("model", self.model, MODELS),
            ("search", self.search, SEARCHES),
            ("method", self.method, METHODS),
            ("measure", self.measure, tuple(MEASURES)),
        ):
            if value not in known:
                raise InputError(f"{name} is {shown(value)}; it must be one of {', '.join(known)}")
        if self.adapt and self.method == "templates":
            raise InputError(
                "adapt changes the statistics of a network, and there is none; give a checkpoint too"
            )
