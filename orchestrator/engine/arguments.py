"""The arguments of `MindSporeTrainer`: how a run recovers, and the checks that need no cluster."""

import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import ray.cloudpickle
from ray.train import RunConfig, ScalingConfig
from ray.train.v2.api import config as v2

from orchestrator.engine.function import module_of, plain
from orchestrator.errors import InputError

# The fields of Ray's own configurations that a run uses.
_USED = {
    v2.ScalingConfig: {"num_workers", "resources_per_worker", "placement_strategy"},
    v2.RunConfig: {"name", "storage_path"},
}
# The name that Ray makes up for a run without one.
_MADE_UP = re.compile(r"ray_train_run-\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryConfig:
    """How a run recovers from failures.

    max_failures: how often each kind of failure may occur. standbys: keep spare workers with all imports done (CPU
    only). step_timeout_s: how long a step may take; None derives it from the measured steps, and never kills a
    function that reports none. checkpoint_every_s: seconds between checkpoints; None is the optimum of Young and Daly.
    keep: how many of the newest checkpoints to keep. best: also keep the checkpoint with the lowest value of this
    metric. workers_per_host: maximum number of ranks on one host. compile_cache: reuse compiled graphs after a
    restart; docs/your_own_training.md says which functions may. compile_key: a hash of everything the graphs depend
    on; None derives it from the function's sources, its configuration and versions. storage_timeout_s: the run ends
    when storage refuses every checkpoint for this long, or when storage is unavailable for this long after the group
    failed.

    Raises InputError for a value outside its range or of another type.
    """

    max_failures: int = 10
    standbys: bool = True
    step_timeout_s: float | None = None
    checkpoint_every_s: float | None = None
    keep: int = 3
    best: str | None = None
    workers_per_host: int | None = None
    compile_cache: bool = False
    compile_key: str | None = None
    storage_timeout_s: float = 300.0

    def __post_init__(self) -> None:
        for name, lowest in (("max_failures", 0), ("keep", 1), ("workers_per_host", 1)):
            value = getattr(self, name)
            optional = name == "workers_per_host"
            if not (optional and value is None or is_whole(value) and value >= lowest):
                _refuse(name, value, f"a whole number from {lowest}", optional=optional)
        for name, optional in (("step_timeout_s", True), ("storage_timeout_s", False)):
            value = getattr(self, name)
            if not (optional and value is None or is_number(value) and value > 0):
                _refuse(name, value, "seconds above 0", optional=optional)
        every = self.checkpoint_every_s
        if not (every is None or is_number(every) and every >= 0):
            _refuse("checkpoint_every_s", every, "seconds from 0", optional=True)
        for name in ("standbys", "compile_cache"):
            if not isinstance(getattr(self, name), bool):
                _refuse(name, getattr(self, name), "True or False")
        if not (self.best is None or isinstance(self.best, str)):
            _refuse("best", self.best, "the name of a metric", optional=True)
        key = self.compile_key
        if not (key is None or isinstance(key, str) and re.fullmatch(r"\w[\w.-]*", key)):
            _refuse("compile_key", key, "letters, digits and - _ .", optional=True)


def is_whole(value: object) -> bool:
    """Whether the value is an integer; a bool is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether the value is an integer or a float, also infinite, but not NaN; a bool is none."""
    return is_whole(value) or isinstance(value, float) and not math.isnan(value)


def _refuse(name: str, value: object, wanted: str, *, optional: bool = False) -> None:
    raise InputError(f"recovery {name} is {value!r}; use {wanted}" + (", or None" if optional else ""))


def check_type(name: str, value: object, wanted: type) -> None:
    """Raise InputError if an argument of the trainer has another type than it must have."""
    if isinstance(value, wanted):
        return
    if type(value).__name__ == wanted.__name__:
        raise InputError(
            f"{name} is a {type(value).__module__}.{type(value).__name__}, of version 1 of Ray Train; "
            "unset RAY_TRAIN_V2_ENABLED"
        )
    raise InputError(f"{name} is a {type(value).__name__}; give a {wanted.__name__}(...)")


def check_scaling(config: ScalingConfig) -> v2.ScalingConfig:
    """The configuration of the number of ranks. Raises InputError."""
    check_type("scaling_config", config, v2.ScalingConfig)
    assert isinstance(config, v2.ScalingConfig)
    _check_unused("scaling_config", config, v2.ScalingConfig())
    if config.min_workers < 1:
        raise InputError(f"scaling_config num_workers is {config.num_workers!r}; a group has at least 1 rank")
    return config


def run_directory(config: RunConfig | None) -> Path:
    """The directory of the run. Raises InputError."""
    if config is None or isinstance(config, v2.RunConfig) and _MADE_UP.fullmatch(str(config.name)):
        raise InputError("run_config has no name; give the run one, so that it can be resumed")
    check_type("run_config", config, v2.RunConfig)
    assert isinstance(config, v2.RunConfig)
    _check_unused("run_config", config, v2.RunConfig())
    name, path = config.name, config.storage_path
    if not isinstance(name, str) or name in (".", "..") or {"/", "\0"} & set(name):
        raise InputError(f"run_config.name is {name!r}; give the name of one folder")
    if not isinstance(path, str) or not path or "\0" in path:
        raise InputError(f"run_config.storage_path is {path!r}; give a directory that every host reaches")
    if "://" in path:
        raise InputError(
            f"run_config.storage_path is {path!r}; only a directory that every host reaches is supported"
        )
    return Path(path).expanduser().absolute() / name


def _check_unused(name: str, config: Any, default: Any) -> None:
    """Refuse settings of Ray that the engine would silently ignore. Example: FailureConfig."""
    for field in fields(default):
        is_used = field.name in _USED[type(default)]
        if not is_used and getattr(config, field.name) != getattr(default, field.name):
            raise InputError(
                f"{name} sets {field.name}, which this engine does not use; remove it "
                "(RecoveryConfig sets failures and checkpoints)"
            )


def arguments_of(function: Callable[..., object], config: Mapping[str, object] | None) -> tuple[object, ...]:
    """The arguments of the training function: its configuration, or none if it has no parameters.

    Raises InputError for a function that the ranks cannot call, or that would do nothing.
    """
    if not callable(function) or inspect.isclass(function):
        raise InputError(f"the training function is {function!r}; pass the function itself")
    if not (config is None or isinstance(config, Mapping)):
        raise InputError(f"train_loop_config is a {type(config).__name__}; give a dictionary")
    inner, name = plain(function), _name_of(function)
    if any(
        check(inner)
        for check in (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    ):
        raise InputError(
            f"{name} is a generator or a coroutine, so a call runs nothing; use a plain function"
        )
    try:
        signature = inspect.signature(function)
    except ValueError:
        raise InputError(f"{name} is no function of Python; wrap it in one") from None
    if config and not signature.parameters:
        raise InputError(f"train_loop_config is given, but {name} has no parameter for it; add one")
    arguments: tuple[object, ...] = (config or {},) if signature.parameters else ()
    try:
        signature.bind(*arguments)
    except TypeError:
        raise InputError(
            f"{name} has the parameters {signature}; use one, the configuration, or none"
        ) from None
    if inner.__module__ == "__main__":
        _check_in_script(function)
    return arguments


def check_sendable(call: Callable[[], object]) -> None:
    """Raise InputError if the training function with its configuration cannot be sent to the ranks."""
    try:
        ray.cloudpickle.dumps(call)
    except Exception as error:
        raise InputError(
            "the training function, with what it refers to and train_loop_config, cannot be sent to the ranks "
            f"({error}); make locks, files and the like in the function"
        ) from error


def _check_in_script(function: Callable[..., object]) -> None:
    """Refuse a function of the script that the ranks, which import the script, could not find by its name."""
    module_of(function)  # refuses a function of a notebook
    if isinstance(function, partial):
        raise InputError(
            "the training function is a functools.partial of the script's own function; pass the "
            "function itself and give its values in train_loop_config"
        )
    found: object = sys.modules["__main__"]
    for part in getattr(function, "__qualname__", "").split("."):
        found = getattr(found, part, None)
    if found is not function:
        raise InputError(
            f"{_name_of(function)} is not at the top level of the script, so the ranks cannot import it; "
            "define it there with `def`"
        )


def _name_of(function: Callable[..., object]) -> str:
    name = getattr(function, "__qualname__", type(function).__name__)
    return f"the training function {name!r}"
