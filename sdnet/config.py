"""The settings of SDNet: frozen dataclasses, checked when they are made.

`__pydantic_config__` lets a reader of job files refuse unknown keys and wrong types by
their path; this package itself does not need pydantic.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
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
_LONGEST_PATTERN = 1000
_OF_POSIX = re.compile(r"\[:\w+:\]")
_OBJECTIVES = ("published", "contrastive", "triplet")
# Fields that an objective does not use: another value there would silently do nothing.
_OF_PUBLISHED = ("temperature", "match_weight", "distill_weight", "reconstruction_weight")
_UNUSED = {
    "published": ("contrastive_temperature", "hybrid", "second_order_weight"),
    "contrastive": ("margin", "hybrid", *_OF_PUBLISHED),
    "triplet": ("contrastive_temperature", *_OF_PUBLISHED),
}
_NORMALISATIONS = ("batch", "modality", "instance", "group", "frn")
_MOST_ORIENTATIONS = 16
FEWEST_FOR_STATISTICS = 64  # patches of a sensor
# Beyond these a patch of 64 px would show mostly what lies outside the stored one.
_MOST_OF_VIEWS = {"rotation_deg": 45.0, "scale": 0.5, "jitter_px": 8.0, "gamma": 2.0}


def _check(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise InputError(f"{name} is {shown(value)}; it must be {allowed}")


def _pattern_problem(pattern: str) -> str:
    """Why this is no regular expression with one group; empty if it is one."""
    if other := _OF_POSIX.search(pattern):
        return f"Python does not know {other[0]}; write the characters, as A-Za-z"
    try:
        groups = re.compile(pattern).groups
    except RecursionError:  # its text depends on where the limit was hit
        return "it is nested too deeply"
    except re.error as error:
        return error.msg
    except OverflowError as error:
        return str(error)
    return "" if groups == 1 else f"it has {groups} groups"


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
        _check(1 <= self.per_pair <= 10_000, "per_pair", self.per_pair, "from 1 to 10000")
        _check(
            0 <= self.min_distance_px <= 10_000, "min_distance_px", self.min_distance_px, "from 0 to 10000"
        )
        _check(0.001 <= self.negatives <= 100, "negatives", self.negatives, "from 0.001 to 100")
        stored = self.stored_size % 2 == 0 and self.size <= self.stored_size <= 2 * self.size
        allowed = f"even, from {self.size} to {2 * self.size}"
        _check(stored, "stored_size", self.stored_size, allowed)


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitConfig:
    """Which scenes train and which test; a scene is never in both.

    train: share of the scenes, drawn with `seed`, when no patterns are given.
    train_scenes, test_scenes: glob patterns for `<ROI>_<season>_<scene>`, given together.
    scene_pattern: a regular expression of at most 1,000 characters that matches the whole name of each
    pair, and whose only group is the scene; without it the layout says which scene an image belongs to.
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
            # Compiling takes time in proportion to the length: 200,000 characters need half a second.
            short = len(self.scene_pattern) <= _LONGEST_PATTERN
            _check(short, "scene_pattern", self.scene_pattern, f"at most {_LONGEST_PATTERN} characters long")
            problem = _pattern_problem(self.scene_pattern)
            allowed = rf"a regular expression with one group, as (.+)_\d+ ({problem})"
            _check(not problem, "scene_pattern", self.scene_pattern, allowed)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything that decides the weights besides the data and the number of ranks.

    The defaults are the published recipe.

    batch: samples per rank and step; the global batch is batch times the job's ranks.
    lr falls linearly to 0 over the run. margin is that of the triplet loss, temperature
    that of the self-distillation softmax. dropout is the probability of a zero.
    objective: `published` is the triplet, self-distillation and reconstruction loss, each slice by
    itself. The others need the whole global batch: `contrastive` is the symmetric InfoNCE loss with
    contrastive_temperature; `triplet` compares each pair with its hardest negative, with margin and hybrid.
    hybrid: of `triplet`, how much the cosine counts beside the distance: 0 as in HardNet, 2 as in HyNet.
    second_order_weight: of the second-order similarity of SOSNet, which is added to the loss; 0 is none.
    scene_run: so many training pairs of one scene, from different images where possible, follow each other
    in an epoch, so that a batch holds harder negatives; 1 mixes all scenes.
    average: the weights of checkpoints are a moving average over the steps, in which the newest weights count
    1 - average; 0 is none. At first they count more, and the start is forgotten.
    measured_statistics: after the last step, replace the BatchNorm statistics by those of training patches, measured
    without dropout and random views; needs normalisation `modality`.
    normalisation: `batch` shares BatchNorm statistics between the modalities, as published.
    `modality` keeps separate moving statistics for each. The others normalise each sample by itself, so that
    no sample depends on its batch and the checkpoint has no statistics: `instance` each channel, `group` 8
    channels together, `frn` each channel by its root mean square, with a learned threshold instead of ReLU.
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
    objective: Literal["published", "contrastive", "triplet"] = "published"
    contrastive_temperature: float = 0.07
    normalisation: Literal["batch", "modality", "instance", "group", "frn"] = "batch"
    slice_batch: int = 0
    orientation_channels: int = 0
    flips: bool = False
    rotation_deg: float = 0.0
    scale: float = 0.0
    jitter_px: float = 0.0
    gamma: float = 0.0
    align_scenes: bool = False
    hybrid: float = 0.0
    second_order_weight: float = 0.0
    scene_run: int = 1
    average: float = 0.0
    measured_statistics: bool = False

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
        for name, most in (("hybrid", 100), ("second_order_weight", 1000)):
            _check(0 <= getattr(self, name) <= most, name, getattr(self, name), f"from 0 to {most}")
        _check(0 <= self.average <= 0.999999, "average", self.average, "from 0 to 0.999999")
        _check(1 <= self.scene_run <= MOST_BATCH, "scene_run", self.scene_run, f"from 1 to {MOST_BATCH}")
        self._check_views()
        self._check_network()
        self._check_unused()

    def _check_network(self) -> None:
        """Also for callers that do not check types: an unknown name must not train something else."""
        _check(self.objective in _OBJECTIVES, "objective", self.objective, " or ".join(_OBJECTIVES))
        known = self.normalisation in _NORMALISATIONS
        _check(known, "normalisation", self.normalisation, ", ".join(_NORMALISATIONS))
        measured = not self.measured_statistics or self.normalisation == "modality"
        allowed = "false, because only normalisation modality has statistics of each sensor"
        _check(measured, "measured_statistics", self.measured_statistics, allowed)
        temperature = self.contrastive_temperature
        _check(0.001 <= temperature <= 1000, "contrastive_temperature", temperature, "from 0.001 to 1000")
        parts = self.slice_batch == 0 or (self.slice_batch >= 2 and self.batch % self.slice_batch == 0)
        allowed = f"0, or 2 or more and a divisor of batch ({self.batch})"
        _check(parts, "slice_batch", self.slice_batch, allowed)
        channels = self.orientation_channels
        allowed = f"from 0 to {_MOST_ORIENTATIONS}"
        _check(0 <= channels <= _MOST_ORIENTATIONS, "orientation_channels", channels, allowed)

    def _check_unused(self) -> None:
        for field in fields(self):
            if field.name in _UNUSED[self.objective]:
                allowed = f"left at {field.default}, because objective {self.objective} does not use it"
                _check(
                    getattr(self, field.name) == field.default, field.name, getattr(self, field.name), allowed
                )

    def _check_views(self) -> None:
        for name, most in _MOST_OF_VIEWS.items():
            _check(0 <= getattr(self, name) <= most, name, getattr(self, name), f"from 0 to {most:g}")


def changed_setting(before: Mapping[str, object], now: Mapping[str, object]) -> str:
    """The first value of `now` that a checkpoint was not trained with, for a message; empty if there is none.

    A field that the checkpoint does not name came later: it was trained with the default.
    """
    known = {**asdict(Recipe()), **before}
    differ = (f"{key} {known.get(key)}, not {value}" for key, value in now.items() if known.get(key) != value)
    return next(differ, "")
