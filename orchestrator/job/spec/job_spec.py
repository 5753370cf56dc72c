"""cluster.yaml: the one file that describes a job, read once and checked strictly.

An unknown or ill-typed key fails with its path, its value and what is allowed, before
anything starts. The rest of the program sees frozen objects only.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from orchestrator.engine.control.size import RankNeeds, room_of
from orchestrator.job.spec.faults import Fault, refusal, type_faults, value_faults
from orchestrator.job.spec.host_spec import HostSpec, refuse_impossible_ids, refuse_loopback_of_several
from orchestrator.job.spec.section import PathText, Section
from orchestrator.job.spec.values import JobValues, values_of_dict, values_of_file
from orchestrator.ray_cluster.address import host_and_port
from orchestrator.storage.host_cache import DEFAULT_BASE, DEFAULT_LIMIT_GB
from sdnet.config import (
    MOST_BATCH,
    MOST_EPOCHS,
    ImageConfig,
    Layout,
    PatchConfig,
    Recipe,
    SplitConfig,
    SyntheticConfig,
)
from sdnet.errors import shown
from sdnet.recipes import RECIPES, patches_for

MOST_NAME = 100
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MOST_NAME - 1}}}")
# Larger numbers can only be mistakes. Without this limit they would cost memory and time before anything fails.
MOST_WORKERS = 10_000
_YEAR_S = 366 * 24 * 3600


class CacheSpec(Section):
    """Where each host keeps copies of data on network file systems, and how many GB (10^9 bytes) in all."""

    path: PathText = DEFAULT_BASE
    limit_gb: float = Field(default=DEFAULT_LIMIT_GB, ge=0.001, le=1_000_000)


class ClusterSpec(Section):
    """Where the ranks run.

    `workers` is the number of ranks, or `[fewest, most]` for a group that may shrink and grow.
    `threads` is the number of CPUs that each rank computes on; the bytes of the weights depend on
    it, so it is a property of the job and not of the host. `collective` mccl rehearses an Ascend job
    on hosts without devices: ranks compute on the CPU, and everything up to the call into HCCL is real.
    """

    address: str = "local"
    device: Literal["cpu", "ascend"] = "cpu"
    workers: int | tuple[int, int] = 1
    workers_per_host: int | None = Field(default=None, ge=1, le=1024)
    threads: int = Field(default=1, ge=1, le=1024)
    soc: Literal["910a", "910b", "a3"] = "910b"
    rendezvous: Literal["auto", "store", "dynamic_cluster", "rank_table"] = "auto"
    hosts: tuple[HostSpec, ...] = ()
    collective: Literal["auto", "mccl"] = "auto"
    cache: CacheSpec = CacheSpec()

    @field_validator("address")
    @classmethod
    def _can_be_reached(cls, value: str) -> str:
        if value not in ("local", "auto") and host_and_port(value) is None:
            raise ValueError("use local, auto or host:port, with an IPv6 host in brackets: [::1]:6379")
        return value

    @model_validator(mode="after")
    def _numbers_fit(self) -> "ClusterSpec":
        fewest, most = self.min_workers, self.max_workers
        if not 1 <= fewest <= most <= MOST_WORKERS:
            raise ValueError(
                f"workers is {shown(self.workers)}; use a number from 1 to {MOST_WORKERS}, or [fewest, most]"
            )
        if self.collective == "mccl" and self.rendezvous == "rank_table":
            raise ValueError("collective mccl needs rendezvous dynamic_cluster; set rendezvous to it")
        only_for = {"store": "cpu", "rank_table": "ascend"}.get(self.rendezvous, self.device)
        if self.device != only_for:
            raise ValueError(f"rendezvous is {self.rendezvous}, which needs device {only_for}; use auto")
        refuse_impossible_ids(self.hosts, self.soc)
        refuse_loopback_of_several(self.hosts)
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
        """Why the hosts can never hold the group; empty if they can. available: `rank_resource` of each host."""
        resource, each = self.rank_resource
        needs = RankNeeds({resource: each}, self.workers_per_host)
        room = room_of([{resource: number} for number in available], needs)
        if room >= self.min_workers:
            return ""
        if self.device == "ascend" and not any(available):
            return (
                f"cluster.device is ascend, but Ray counts no NPU on any of the {len(available)} host(s) of the "
                "cluster; set ASCEND_RT_VISIBLE_DEVICES to the devices of the host, or give "
                "--resources='{\"NPU\": <n>}', at `ray start`"
            )
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
    """Image pairs, and how patches are cut from them.

    images: a folder of image pairs; without it and `prepared`, synthetic pairs are made. prepared: a folder
    with train.npz and test.npz made elsewhere, which are used in place. layout: of images.
    max_pixels: an image whose header has more pixels counts as bad and is not decoded.
    """

    images: PathText | None = None
    prepared: PathText | None = None
    synthetic: SyntheticConfig = SyntheticConfig()
    patches: PatchConfig = PatchConfig()
    split: SplitConfig = SplitConfig()
    max_bad_images: float = Field(default=0.01, ge=0, le=1)
    layout: Layout = "auto"
    max_pixels: int = Field(default=1 << 24, ge=1, le=1 << 30)

    @model_validator(mode="after")
    def _one_source(self) -> "DataSpec":
        if self.images is not None and self.prepared is not None:
            raise ValueError(
                f"images is {shown(self.images)} and prepared is {shown(self.prepared)}; give one of them"
            )
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
    keep: int = Field(default=3, ge=1, le=10_000)

    @field_validator("every_s")
    @classmethod
    def _not_negative(cls, value: float | str) -> float | str:
        if not isinstance(value, str) and not 0 <= value <= _YEAR_S:
            raise ValueError("use seconds from 0 to a year, or auto")
        return value


class RecoverySpec(Section):
    """How many failures a run survives before it gives up, and how it prepares for them.

    standbys: keep spare workers with MindSpore imported, on every host as many as the fullest host has ranks.
    storage_timeout_s: how long a run continues while storage is unavailable or full.
    """

    max_failures: int = Field(default=10, ge=0, le=1_000_000)
    standbys: bool = True
    step_timeout_s: float | Literal["auto"] = "auto"
    storage_timeout_s: float = Field(default=300.0, ge=1, le=_YEAR_S)

    @field_validator("step_timeout_s")
    @classmethod
    def _long_enough(cls, value: float | str) -> float | str:
        if not isinstance(value, str) and not 1 <= value <= _YEAR_S:
            raise ValueError("use seconds from 1 to a year, or auto")
        return value


class EvaluateSpec(Section):
    """How often the network is evaluated, and with how many pairs at once."""

    every_epochs: int = Field(default=1, ge=1, le=MOST_EPOCHS)
    batch: int = Field(default=600, ge=1, le=MOST_BATCH)


class JobSpec(Section):
    """One job: everything that `launch` needs to know."""

    name: str
    storage: PathText = "./runs"
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
            raise ValueError(
                f"use up to {MOST_NAME} letters, digits, '.', '_' and '-', a letter or digit first"
            )
        return value

    def values(self) -> dict[str, Any]:
        """The job as plain values, from which `spec_from_dict` makes it again; absent keys remain absent."""
        return self.model_dump(mode="json", exclude_none=True)

    @property
    def global_batch(self) -> int:
        """Samples of one step over all ranks; unchanged when the group shrinks."""
        return self.train.batch * self.cluster.max_workers


def load_spec(path: Path, overrides: tuple[str, ...] = ()) -> JobSpec:
    """Read cluster.yaml and apply `key.path=value` overrides, whose values are read as YAML.

    Raises InputError, one line with the key, the line of the file, the value and the remedy.
    """
    return _checked(values_of_file(path, overrides))


def spec_from_dict(raw: Mapping[str, object], source: str, overrides: tuple[str, ...] = ()) -> JobSpec:
    """Check a job given as plain values. Raises InputError as `load_spec` does, without lines."""
    return _checked(values_of_dict(raw, source, overrides))


def _checked(values: JobValues) -> JobSpec:
    faults = value_faults(values.values, JobSpec)
    whole = _with_whole_recipe(values, faults)
    # Through JSON: strict types, and lists become tuples.
    text = json.dumps(whole, ensure_ascii=False).encode("utf-8", "replace")
    try:
        spec = JobSpec.model_validate_json(text)
    except ValidationError as error:
        known = {path for path, _ in faults}
        for path, fault in type_faults(error, JobSpec, json.loads(text), values):
            if path not in known:
                faults.append((path, fault))
    if faults:
        raise refusal(faults, values)
    patches = patches_for(spec.train, spec.data.patches)  # the recipe may need more
    return spec.model_copy(update={"data": spec.data.model_copy(update={"patches": patches})})


def _with_whole_recipe(values: JobValues, faults: list[Fault]) -> dict[str, object]:
    """Let `train` name a recipe and override some of its fields; an unknown recipe is added to the faults."""
    raw = values.values
    train = raw.get("train", {})
    if not isinstance(train, dict):
        return raw
    given = dict(train)
    name = given.pop("recipe", "sen1_2")
    if name is not None and (not isinstance(name, str) or name not in RECIPES):
        known = ", ".join(sorted(RECIPES))
        faults.append((("train", "recipe"), f"train.recipe is {shown(name)}; it must be one of {known}"))
    recipe = RECIPES.get(str(name), RECIPES["sen1_2"])
    return {**raw, "train": {**dataclasses.asdict(recipe), **given}}
