"""The environment variables that Ray reads: those that we set, and those with which a job cannot run."""

import os
import re
import subprocess
import sys
from pathlib import Path

from sdnet.cli.mindspore_variables import refuse_variables_mindspore_fails_on
from sdnet.errors import InputError
from sdnet.paths import refuse_deleted_folder

# Ray reads these when it is imported or started, so we set them before.
_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # How often Ray Train's controller polls the ranks.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    # Ranks keep the working directory of the job; we decide the layout of the run directory.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # engine/control/drain.py looks for drained hosts, without an extra process.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Ray notices a dead host after 2 s instead of 15, and a cut link after 6 s instead of 65. The head's environment
    # decides: for a cluster started by `ray start`, set them there (docs/faults.md).
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "4",
}
_AUTH_MODES = ("token", "disabled")
_POLLING = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
# A setting of Ray's C++ code has its name in lower case.
_CORE_SETTING = re.compile(r"RAY_[a-z]\w*", re.ASCII)
_LOAD_RAY_S = 60.0


def prepare_environment() -> None:
    """Set Ray's environment variables; call it before `import ray`. The user's own values win."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        Path.home()
    except RuntimeError:
        # No HOME, and a user without a passwd entry: Ray Train could not be imported. Containers take / then, too.
        os.environ["HOME"] = "/"


def check_environment() -> None:
    """Refuse an environment in which Ray or MindSpore would not work as a job needs. Raises InputError."""
    refuse_deleted_folder("Ray")
    refuse_variables_mindspore_fails_on()
    mode = os.environ.get("RAY_AUTH_MODE")
    if "ray" in sys.modules and mode is None:
        raise InputError(
            "RAY_AUTH_MODE is not set and Ray, which reads it when it is imported, is imported already; "
            "set RAY_AUTH_MODE=token, or call prepare_environment() before `import ray`"
        )
    if mode is not None and mode.lower() not in _AUTH_MODES:
        raise InputError(f"RAY_AUTH_MODE is {mode!r}; unset it, or set it to token")
    optimize = os.environ.get("PYTHONOPTIMIZE", "")
    if optimize.isdecimal() and int(optimize) > 1:
        raise InputError(
            f"PYTHONOPTIMIZE is {optimize!r}, which removes the docstrings that Ray's agents read; set it to 1, "
            "or unset it"
        )
    version_2 = os.environ.get("RAY_TRAIN_V2_ENABLED", "1")
    if version_2.lower() not in ("1", "true"):
        raise InputError(
            f"RAY_TRAIN_V2_ENABLED is {version_2!r}, and training needs version 2 of Ray Train; unset it"
        )
    _check_numbers()


def _check_numbers() -> None:
    """Refuse numbers that Ray cannot read. Ray's C++ code would end this process with a segmentation fault."""
    polling = os.environ.get(_POLLING, _ENVIRONMENT[_POLLING])
    if not re.fullmatch(r"\d+(\.\d+)?", polling, re.ASCII):
        raise InputError(f"{_POLLING} is {polling[:80]!r}, not a number of seconds; correct it, or unset it")
    chosen = {
        name: value
        for name, value in os.environ.items()
        if _CORE_SETTING.fullmatch(name) and _ENVIRONMENT.get(name) != value
    }
    if not chosen or _ray_can_read(chosen):
        return
    for name, value in sorted(chosen.items()):
        if not _ray_can_read({name: value}):
            raise InputError(
                f"{name} is {value[:80]!r}, which Ray cannot read; correct it (most settings are whole numbers), "
                "or unset it"
            )


def _ray_can_read(settings: dict[str, str]) -> bool:
    """Whether Ray can be imported with these settings of its C++ code, tried in another process."""
    others = {name: value for name, value in os.environ.items() if not _CORE_SETTING.fullmatch(name)}
    try:
        tried = subprocess.run(
            # -P: a file ray.py in the current directory is not Ray.
            [sys.executable, "-P", "-c", "import ray._raylet"],
            env=others | settings, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LOAD_RAY_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return True  # a wrong value ends the import at once, so this host is only slow
    return tried.returncode == 0
