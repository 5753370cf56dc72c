"""What a run of SDNet can be told: frozen dataclasses, checked when they are made.

`__pydantic_config__` lets a reader of job files refuse unknown keys and wrong types by
their path; this package itself does not need pydantic.
"""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from sdnet.errors import InputError, shown

STRICT = {"extra": "forbid", "strict": True}
# How a folder of images is laid out; see docs/data.md.
Layout = Literal["auto", "sen12", "flat", "qxslab_saropt", "osdataset"]
# Bounds far beyond any use: a larger number is a slip, and costs memory or trains nothing.
MOST_EPOCHS = 100_000
MOST_BATCH = 65_536
MOST_LR = 10.0
_MOST_PAIRS = 100_000  # 16 GB of images
_MOST_SEED = 2**63 - 1


def _check(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise InputError(f"{name} is {shown(value)}; it must be {allowed}")


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
        allowed = f"from 3 (one to train, two to test) to {_MOST_PAIRS}"
        _check(3 <= self.scenes <= _MOST_PAIRS, "scenes", self.scenes, allowed)
        _check(self.pairs >= self.scenes, "pairs", self.pairs, f"at least scenes ({self.scenes})")
        _check(self.pairs <= _MOST_PAIRS, "pairs", self.pairs, f"at most {_MOST_PAIRS}")
        _check(0 <= self.seed <= _MOST_SEED, "seed", self.seed, "from 0 to 2**63 - 1")


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
        _check(1 <= self.per_pair <= 10_000, "per_pair", self.per_pair, "from 1 to 10000")
        _check(
            0 <= self.min_distance_px <= 10_000, "min_distance_px", self.min_distance_px, "from 0 to 10000"
        )
        _check(0.001 <= self.negatives <= 100, "negatives", self.negatives, "from 0.001 to 100")


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
        _check(0 <= self.seed <= _MOST_SEED, "seed", self.seed, "from 0 to 2**63 - 1")
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
        allowed = f"from 2 to {MOST_BATCH}: the loss finds its negatives inside the batch"
        _check(1 <= self.epochs <= MOST_EPOCHS, "epochs", self.epochs, f"from 1 to {MOST_EPOCHS}")
        _check(2 <= self.batch <= MOST_BATCH, "batch", self.batch, allowed)
        # Beyond these, float32 rounds to 0, to 1 or to infinity, and nothing is learnt.
        _check(1e-12 <= self.lr <= MOST_LR, "lr", self.lr, f"from 1e-12 to {MOST_LR:g}")
        _check(0 <= self.dropout <= 0.99, "dropout", self.dropout, "from 0 to 0.99")
        _check(0.001 <= self.temperature <= 1000, "temperature", self.temperature, "from 0.001 to 1000")
        _check(0 <= self.seed < 2**31, "seed", self.seed, "from 0 to 2**31 - 1")
        for name in ("beta1", "beta2"):
            _check(0 <= getattr(self, name) <= 0.999999, name, getattr(self, name), "from 0 to 0.999999")
        for name in ("weight_decay", "margin", "match_weight", "distill_weight", "reconstruction_weight"):
            _check(0 <= getattr(self, name) <= 1e6, name, getattr(self, name), "from 0 to 1000000")
