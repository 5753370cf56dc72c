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
# How a folder of images is laid out; see docs/data.md.
Layout = Literal["auto", "sen12", "flat", "qxslab_saropt", "osdataset"]
_OBJECTIVES = ("published", "contrastive")
_NORMALISATIONS = ("batch", "modality", "instance")
_MOST_ORIENTATIONS = 16
# Beyond these a patch of 64 px would show mostly what lies outside the stored one.
_MOST_ROTATION_DEG, _MOST_SCALE, _MOST_JITTER_PX, _MOST_GAMMA = 45.0, 0.5, 8.0, 2.0


def _check(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise InputError(f"{name} is {value!r}; it must be {allowed}")


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
    stored_size: edge in pixels of training patches on disk; a recipe that turns or scales them needs
    more than `size`. Where a patch reaches beyond its image, the border is mirrored.
    align: estimate by how much the SAR images of each training scene lie off its optical ones.
    """

    __pydantic_config__: ClassVar[dict] = STRICT

    size: Literal[64] = 64
    per_pair: int = 3
    detect_on: Literal["optical", "sar", "both"] = "optical"
    min_distance_px: float = 16.0
    negatives: float = 1.0
    stored_size: int = 64
    align: bool = False

    def __post_init__(self) -> None:
        stored = self.stored_size % 2 == 0 and self.size <= self.stored_size <= 2 * self.size
        allowed = f"even, from {self.size} to {2 * self.size}"
        _check(stored, "stored_size", self.stored_size, allowed)
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

    The defaults are the published recipe.

    batch: samples per rank and step; the global batch is batch times the job's ranks.
    lr falls linearly to 0 over the run. margin is that of the triplet loss, temperature
    that of the self-distillation softmax. dropout is the probability of a zero.
    objective: `published` is the triplet, self-distillation and reconstruction loss, each slice by
    itself. `contrastive` is the symmetric InfoNCE loss over the whole global batch, with
    contrastive_temperature.
    normalisation: `batch` shares BatchNorm statistics between the modalities, as published.
    `modality` keeps separate moving statistics for each. `instance` normalises each channel of each
    sample by itself, so that no sample depends on its batch, and adds no statistics to the checkpoint.
    slice_batch: samples that are computed at once and share BatchNorm statistics; 0 is `batch`. With
    it, one rank of batch 400 trains what four ranks of batch 100 train.
    orientation_channels: how many edge orientations the network gets beside the grey values; 0 is none.
    flips: turn each pair by one of the 8 flips and right-angle rotations, the same for both patches.
    rotation_deg, scale: turn and scale each pair at random by at most this angle, and by a factor of at
    most 1 + scale or 1 / (1 + scale); they need stored patches larger than 64 px.
    jitter_px: move the SAR patch at random by at most this many pixels in each direction.
    gamma: raise the grey values of each patch to a random power between exp(-gamma) and exp(gamma).
    align_scenes: move each SAR patch by its scene's shift, which `prepare` estimated.
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
    objective: Literal["published", "contrastive"] = "published"
    contrastive_temperature: float = 0.07
    normalisation: Literal["batch", "modality", "instance"] = "batch"
    slice_batch: int = 0
    orientation_channels: int = 0
    flips: bool = False
    rotation_deg: float = 0.0
    scale: float = 0.0
    jitter_px: float = 0.0
    gamma: float = 0.0
    align_scenes: bool = False

    def __post_init__(self) -> None:
        _check(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        _check(
            self.batch >= 2, "batch", self.batch, "at least 2: the loss finds its negatives inside the batch"
        )
        _check(0 < self.lr < math.inf, "lr", self.lr, "above 0")
        _check(0 <= self.dropout < 1, "dropout", self.dropout, "from 0 to below 1")
        for name in ("temperature", "contrastive_temperature"):
            _check(0 < getattr(self, name) < math.inf, name, getattr(self, name), "above 0")
        self._check_network()
        _check(0 <= self.seed < 2**31, "seed", self.seed, "from 0 to 2**31 - 1")
        for name in ("beta1", "beta2"):
            _check(0 <= getattr(self, name) < 1, name, getattr(self, name), "from 0 to below 1")
        for name in ("weight_decay", "margin", "match_weight", "distill_weight", "reconstruction_weight"):
            _check(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "0 or more")

    def _check_network(self) -> None:
        """Also for callers that do not check types: an unknown name must not train something else."""
        _check(self.objective in _OBJECTIVES, "objective", self.objective, " or ".join(_OBJECTIVES))
        known = self.normalisation in _NORMALISATIONS
        _check(known, "normalisation", self.normalisation, ", ".join(_NORMALISATIONS))
        parts = self.slice_batch == 0 or (self.slice_batch >= 2 and self.batch % self.slice_batch == 0)
        _check(
            parts, "slice_batch", self.slice_batch, f"0, or 2 or more and a divisor of batch ({self.batch})"
        )
        _check(
            0 <= self.orientation_channels <= _MOST_ORIENTATIONS,
            "orientation_channels",
            self.orientation_channels,
            f"from 0 to {_MOST_ORIENTATIONS}",
        )
        _check(0 <= self.rotation_deg <= _MOST_ROTATION_DEG, "rotation_deg", self.rotation_deg,
               f"from 0 to {_MOST_ROTATION_DEG}")  # fmt: skip
        _check(0 <= self.scale <= _MOST_SCALE, "scale", self.scale, f"from 0 to {_MOST_SCALE}")
        _check(0 <= self.jitter_px <= _MOST_JITTER_PX, "jitter_px", self.jitter_px,
               f"from 0 to {_MOST_JITTER_PX}")  # fmt: skip
        _check(0 <= self.gamma <= _MOST_GAMMA, "gamma", self.gamma, f"from 0 to {_MOST_GAMMA}")
