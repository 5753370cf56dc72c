"""What a run of SDNet can be told: frozen dataclasses, checked when they are made.

`__pydantic_config__` lets a reader of job files refuse unknown keys and wrong types by
their path; this package itself does not need pydantic.
"""

import math
import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from sdnet.errors import InputError

STRICT = {"extra": "forbid", "strict": True}
_LONGEST_SHOWN = 60
# How a folder of images is laid out; see docs/data.md.
Layout = Literal["auto", "sen12", "flat", "qxslab_saropt", "osdataset"]


def _check(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise InputError(f"{name} is {shortened(value)}; it must be {allowed}")


def shortened(value: object) -> str:
    """A value as a message shows it: at most 60 characters of its `repr`."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _groups(pattern: str) -> int:
    """How many groups a regular expression has; -1 for one that is none."""
    try:
        return re.compile(pattern).groups
    except (re.error, OverflowError, RecursionError):
        return -1


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageConfig:
    """Which images are read.

    layout: how their folder is laid out; `auto` takes the only layout that fits.
    max_pixels: an image that announces more is bad, and not decoded.
    """

    layout: Layout = "auto"
    max_pixels: int = 1 << 24

    def __post_init__(self) -> None:
        _check(self.max_pixels >= 1, "max_pixels", self.max_pixels, "at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticConfig:
    """Pairs made up from a seed, when there is no SEN1-2 tree."""

    __pydantic_config__: ClassVar[dict] = STRICT

    pairs: int = 240
    scenes: int = 12
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.scenes >= 3, "scenes", self.scenes, "at least 3: one to train, two to test")
        _check(self.pairs >= self.scenes, "pairs", self.pairs, f"at least scenes ({self.scenes})")
        _check(self.seed >= 0, "seed", self.seed, "0 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchConfig:
    """How patches are cut from a pair of images.

    size: edge in pixels; SDNet's network takes 64 only.
    per_pair: at most so many patches a pair, strongest SIFT keypoints first.
    detect_on: the image whose keypoints count; `both` takes the union.
    min_distance_px: no two kept keypoints of a pair are nearer than this (Euclidean).
    negatives: non-matching test pairs for each match, from another scene.
    """

    __pydantic_config__: ClassVar[dict] = STRICT

    size: Literal[64] = 64
    per_pair: int = 3
    detect_on: Literal["optical", "sar", "both"] = "optical"
    min_distance_px: float = 16.0
    negatives: float = 1.0

    def __post_init__(self) -> None:
        _check(self.per_pair >= 1, "per_pair", self.per_pair, "at least 1")
        _check(0 <= self.min_distance_px < math.inf, "min_distance_px", self.min_distance_px, "0 or more")
        _check(0 < self.negatives <= 100, "negatives", self.negatives, "above 0 and at most 100")


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitConfig:
    """Which scenes train and which test; a scene is never in both.

    train: share of the scenes, drawn with `seed`, when no patterns are given.
    train_scenes, test_scenes: glob patterns for `<ROI>_<season>_<scene>`, given together.
    scene_pattern: a regular expression that matches the whole name of each pair, and whose only group
    is the scene; without it the layout says which scene an image belongs to.
    """

    __pydantic_config__: ClassVar[dict] = STRICT

    train: float = 0.7
    seed: int = 0
    train_scenes: tuple[str, ...] | None = None
    test_scenes: tuple[str, ...] | None = None
    scene_pattern: str | None = None

    def __post_init__(self) -> None:
        _check(0 < self.train < 1, "train", self.train, "between 0 and 1")
        _check(self.seed >= 0, "seed", self.seed, "0 or more")
        both = (self.train_scenes is None) == (self.test_scenes is None)
        _check(both, "train_scenes", self.train_scenes, "given together with test_scenes, or neither")
        if self.scene_pattern is not None:
            known = _groups(self.scene_pattern) == 1
            _check(
                known,
                "scene_pattern",
                self.scene_pattern,
                r"a regular expression with one group, as (.+)_\d+",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything that decides the weights besides the data and the number of ranks.

    batch: samples per rank and step; the global batch is batch times the job's ranks.
    lr falls linearly to 0 over the run. margin is that of the triplet loss, temperature
    that of the self-distillation softmax. dropout is the probability of a zero.
    """

    __pydantic_config__: ClassVar[dict] = STRICT

    epochs: int = 20
    batch: int = 500
    lr: float = 0.004
    weight_decay: float = 1e-4
    beta1: float = 0.5
    beta2: float = 0.9
    margin: float = 1.0
    temperature: float = 0.1
    match_weight: float = 1.0
    distill_weight: float = 10.0
    reconstruction_weight: float = 0.001
    dropout: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        _check(
            self.batch >= 2, "batch", self.batch, "at least 2: the loss finds its negatives inside the batch"
        )
        _check(0 < self.lr < math.inf, "lr", self.lr, "above 0")
        _check(0 <= self.dropout < 1, "dropout", self.dropout, "from 0 to below 1")
        _check(0 < self.temperature < math.inf, "temperature", self.temperature, "above 0")
        _check(0 <= self.seed < 2**31, "seed", self.seed, "from 0 to 2**31 - 1")
        for name in ("beta1", "beta2"):
            _check(0 <= getattr(self, name) < 1, name, getattr(self, name), "from 0 to below 1")
        for name in ("weight_decay", "margin", "match_weight", "distill_weight", "reconstruction_weight"):
            _check(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "0 or more")
