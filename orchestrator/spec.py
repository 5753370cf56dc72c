"""cluster.yaml: the one file a job is made of, read once and checked strictly.

An unknown or ill-typed key fails with its path, its value and what is allowed, before
anything starts. The rest of the program sees frozen objects only.
"""

import copy
import dataclasses
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from orchestrator.spec_faults import faults_line
from sdnet.config import ImageConfig, Layout, PatchConfig, Recipe, SplitConfig, SyntheticConfig
from sdnet.errors import InputError
from sdnet.recipes import RECIPES, patches_for

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Section(BaseModel):
    """A part of cluster.yaml: unknown keys and wrong types are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class HostSpec(Section):
    """An Ascend host as the user states it; `devices` maps physical ids to device addresses."""

    address: str
    devices: dict[int, str] = Field(min_length=1)


class ClusterSpec(Section):
    """Where the ranks run.

    `workers` is the number of ranks, or `[fewest, most]` for a group that may shrink and grow.
    `threads` is the number of CPUs that each rank computes on; the bytes of the weights depend on
    it, so it is a property of the job and not of the host. `collective` mccl rehearses an Ascend job
    on hosts without devices: ranks compute on the CPU, all before the call into HCCL is real.
    """

    address: str = "local"
    device: Literal["cpu", "ascend"] = "cpu"
    workers: int | tuple[int, int] = 1
    workers_per_host: int | None = None
    threads: int = Field(default=1, ge=1, le=1024)
    soc: Literal["910a", "910b", "a3"] = "910b"
    rendezvous: Literal["auto", "store", "dynamic_cluster", "rank_table"] = "auto"
    hosts: tuple[HostSpec, ...] = ()
    collective: Literal["auto", "mccl"] = "auto"

    @field_validator("address")
    @classmethod
    def _can_be_reached(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        names_a_port = colon and host and "/" not in host and port.isdecimal() and 0 < int(port) < 2**16
        if value not in ("local", "auto") and not names_a_port:
            raise ValueError("use local, auto or host:port")
        return value

    @model_validator(mode="after")
    def _numbers_fit(self) -> "ClusterSpec":
        fewest, most = self.min_workers, self.max_workers
        if not 1 <= fewest <= most:
            raise ValueError(f"workers is {self.workers}; use a number from 1, or [fewest, most]")
        if self.workers_per_host is not None and self.workers_per_host < 1:
            raise ValueError(f"workers_per_host is {self.workers_per_host}; it must be at least 1")
        if self.collective == "mccl" and self.rendezvous == "rank_table":
            raise ValueError("collective is mccl, which meets by rendezvous dynamic_cluster only; set that")
        only_for = {"store": "cpu", "rank_table": "ascend"}.get(self.rendezvous, self.device)
        if self.device != only_for:
            raise ValueError(f"rendezvous is {self.rendezvous}, which needs device {only_for}; use auto")
        return self

    @property
    def min_workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def max_workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    @property
    def rank_resource(self) -> tuple[str, int]:
        """What Ray counts on a host, and how many of it each rank takes."""
        return ("CPU", self.threads) if self.device == "cpu" else ("NPU", 1)

    def why_too_large(self, available: Sequence[int]) -> str:
        """Why hosts that have so many of `rank_resource` each can never hold the group; empty if they can."""
        resource, each = self.rank_resource
        most = math.inf if self.workers_per_host is None else self.workers_per_host
        room = sum(int(min(number // each, most)) for number in available)
        if room >= self.min_workers:
            return ""
        per_host = "" if self.workers_per_host is None else f" at {self.workers_per_host} a host"
        lower = "workers" if each == 1 else "workers or threads"
        return (
            f"cluster.workers is {self.min_workers}, but the {len(available)} host(s) of the cluster hold "
            f"only {room} ranks of {each} {resource}(s){per_host}; lower {lower}, or add hosts"
        )

    @property
    def elastic(self) -> bool:
        return self.min_workers != self.max_workers


class DataSpec(Section):
    """Image pairs and how patches are made of them.

    images: a folder of image pairs; null makes synthetic pairs. prepared: a folder with train.npz and
    test.npz made elsewhere, used where they lie, instead of images. layout: how images is laid out.
    max_pixels: an image that announces more is bad, and not decoded.
    """

    images: str | None = None
    prepared: str | None = None
    synthetic: SyntheticConfig = SyntheticConfig()
    patches: PatchConfig = PatchConfig()
    split: SplitConfig = SplitConfig()
    max_bad_images: float = Field(default=0.01, ge=0, le=1)
    layout: Layout = "auto"
    max_pixels: int = Field(default=1 << 24, ge=1, le=1 << 30)

    @model_validator(mode="after")
    def _one_source(self) -> "DataSpec":
        if self.images is not None and self.prepared is not None:
            raise ValueError(f"images is {self.images!r} and prepared is {self.prepared!r}; give one of them")
        if self.images is None and (self.layout != "auto" or self.split.scene_pattern is not None):
            key = "split has a scene_pattern" if self.layout == "auto" else f"layout is {self.layout!r}"
            raise ValueError(f"{key}, which describes images, and there are none; give images, or remove it")
        return self

    @property
    def image_config(self) -> ImageConfig:
        return ImageConfig(layout=self.layout, max_pixels=self.max_pixels)


class CheckpointSpec(Section):
    """When to save and what to keep: the `keep` newest, and the best by FPR95."""

    every_s: float | Literal["auto"] = "auto"
    keep: int = Field(default=3, ge=1)

    @field_validator("every_s")
    @classmethod
    def _not_negative(cls, value: float | str) -> float | str:
        if not isinstance(value, str) and not value >= 0:
            raise ValueError("use seconds from 0, or auto")
        return value


class RecoverySpec(Section):
    """How much failure a run may go through before it gives up, and how it prepares for it.

    standbys: keep workers waiting with MindSpore imported, one for each rank a host may have.
    """

    max_failures: int = Field(default=10, ge=0)
    standbys: bool = True
    step_timeout_s: float | Literal["auto"] = "auto"

    @field_validator("step_timeout_s")
    @classmethod
    def _positive(cls, value: float | str) -> float | str:
        if not isinstance(value, str) and not value > 0:
            raise ValueError("use seconds above 0, or auto")
        return value


class EvaluateSpec(Section):
    """How often FPR95 is taken, and how many pairs go through the network at once."""

    every_epochs: int = Field(default=1, ge=1)
    batch: int = Field(default=600, ge=1)


class JobSpec(Section):
    """One job: everything that `launch` needs to know."""

    name: str
    storage: str = "./runs"
    cluster: ClusterSpec = ClusterSpec()
    data: DataSpec = DataSpec()
    train: Recipe = RECIPES["sen1_2"]
    checkpoint: CheckpointSpec = CheckpointSpec()
    recovery: RecoverySpec = RecoverySpec()
    evaluate: EvaluateSpec = EvaluateSpec()

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("use up to 100 letters, digits, '.', '_' and '-', a letter or digit first")
        return value

    @property
    def global_batch(self) -> int:
        """Samples of one step over all ranks; it stays when the group shrinks."""
        return self.train.batch * self.cluster.max_workers


def load_spec(path: Path, overrides: tuple[str, ...] = ()) -> JobSpec:
    """Read cluster.yaml and apply `key.path=value` overrides, whose values are read as YAML."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); give the path of a cluster.yaml") from None
    raw = _parse_yaml(text, str(path))
    if not isinstance(raw, dict):
        raise InputError(f"{path} holds {type(raw).__name__}, not keys and values; see cluster_configs/")
    return spec_from_dict(with_overrides(raw, overrides), str(path))


def with_overrides(raw: dict[str, Any], overrides: tuple[str, ...]) -> dict[str, Any]:
    """A copy of the plain values of a job with each `key.path=value` applied, in order."""
    changed = copy.deepcopy(raw)
    for override in overrides:
        _apply(changed, override)
    return changed


def spec_from_dict(raw: dict[str, Any], source: str) -> JobSpec:
    """Check a job given as plain values; the faults are named with their paths in one line."""
    whole = _with_whole_recipe(raw)
    try:
        # Through JSON: strict types, and lists become tuples.
        text = json.dumps(whole, default=str)
    except (TypeError, ValueError) as error:
        # A key that is a date, or a value that an anchor makes part of itself.
        raise InputError(f"{source} holds what no job can ({error}); see docs/cluster_yaml.md") from None
    try:
        return _with_patches_for_recipe(JobSpec.model_validate_json(text))
    except ValidationError as error:
        raise InputError(f"{source}: {faults_line(error, JobSpec, json.loads(text))}") from None


def _with_patches_for_recipe(spec: JobSpec) -> JobSpec:
    """Let preprocessing store what the recipe trains on: larger patches, shifts of scenes."""
    data = spec.data.model_copy(update={"patches": patches_for(spec.train, spec.data.patches)})
    return spec.model_copy(update={"data": data})


def _with_whole_recipe(raw: dict[str, Any]) -> dict[str, Any]:
    """Let `train` name a recipe and override some of its fields."""
    train = raw.get("train", {})
    if not isinstance(train, dict):
        return raw
    given = dict(train)
    name = given.pop("recipe", "sen1_2")
    if not isinstance(name, str) or name not in RECIPES:
        raise InputError(f"train.recipe is {name!r}; it must be one of {', '.join(sorted(RECIPES))}")
    return {**raw, "train": {**dataclasses.asdict(RECIPES[name]), **given}}


def _parse_yaml(text: str, source: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        message = " ".join(str(error).split())
        raise InputError(f"{source} is not YAML ({message}); correct it at that line") from None


def _apply(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"--set {override!r} has no key=value; write it like --set train.epochs=5")
    *parents, last = key.split(".")
    section = raw
    for parent in parents:
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise InputError(f"--set {key}: {parent} holds a plain value, so {key} cannot be set in it")
    section[last] = _parse_yaml(text, f"--set {key}")
