"""The Ray cluster a job runs on: started here, or joined, always with token authentication."""

import logging
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from orchestrator.ray_address import address_to_join, host_and_port
from orchestrator.spec import ClusterSpec
from sdnet.errors import InputError
from sdnet.paths import printable_path

# Read by Ray when it is imported or started, so they are set before either.
_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # How long a rank's failure, or a report, may wait for the controller to look.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    # Ranks keep the working directory of the job; the run directory is ours to lay out.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # Drained hosts are watched for by training/drain.py, without a process of its own.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # A dead host is known after 2 s instead of 15, a cut link after 6 s instead of 65. Counts where
    # the head starts: for a cluster started by `ray start`, set them there (docs/faults.md).
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "4",
}


_KNOCK_S = 5.0


def prepare_environment() -> None:
    """Set what Ray must find in the environment; must come before `import ray`. The user's own values win."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def ray_session(cluster: ClusterSpec) -> Iterator[None]:
    """Connect to the cluster of the job for as long as the block lasts.

    `local` starts Ray on this host with a token that only this job knows, and stops it at the
    end. Raises InputError when the cluster cannot be reached or is too small for the job, or when
    Ray was imported before its authentication was chosen.
    """
    if "ray" in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        raise InputError(
            "RAY_AUTH_MODE is not set and Ray, which reads it when it is imported, is imported already; "
            "set RAY_AUTH_MODE=token, or call prepare_environment() before `import ray`"
        )
    prepare_environment()
    if cluster.address == "local" and "RAY_AUTH_TOKEN" not in os.environ and not _default_token().exists():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    address = address_to_join(cluster.address, os.environ)
    where = repr(address) if address == cluster.address else f"'auto' (RAY_ADDRESS is {address!r})"
    import ray

    try:
        _connect(address)
    except ray.exceptions.AuthenticationError as error:
        raise InputError(
            f"cluster.address is {where} and its token is not known here "
            f"({_line(error)}); set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token"
        ) from None
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise InputError(
            f"cluster.address is {where} and no Ray cluster answers there ({_line(error)}); "
            "start one with `ray start --head`, or use address: local"
        ) from None
    try:
        _check_size(cluster)
        yield
    finally:
        ray.shutdown()


def _connect(address: str) -> None:
    import ray

    make_command_line_printable()
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address == "local":
        # Whatever Ray starts inherits it, and then does not interrupt a rank's kernels when it wakes up:
        # the kernels' threads share their work evenly, so an interruption of one holds up all.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        with _fit_for_one_job():
            ray.init(address="local", include_dashboard=False, **quiet)
    else:
        _knock(address)
        ray.init(address=address, **quiet)


def make_command_line_printable() -> None:
    """Ray 2.60 sends the command line to the cluster as UTF-8, and fails for a folder named in GBK."""
    from ray._private import utils

    command_line = " ".join(sys.orig_argv)
    if not command_line.isprintable():
        utils.get_entrypoint_name = lambda: printable_path(command_line)


@contextmanager
def _fit_for_one_job() -> Iterator[None]:
    """What Ray starts meanwhile is what a job on this host needs, and ends with nothing but this process.

    Each of Ray's processes has a process group of its own, as its workers always do: a signal to
    the launcher's group, as `timeout` sends it, would end Ray before the ranks have saved. There is no
    cluster that could grow, and a rank's output goes to its log, so neither of the two monitors runs
    beside the ranks: `ray.init` has no setting for either.
    """
    from ray._private import parameter, services

    theirs = services.ConsolePopen, parameter.RayParams
    services.ConsolePopen = partial(services.ConsolePopen, process_group=0)
    parameter.RayParams = partial(parameter.RayParams, no_monitor=True, include_log_monitor=False)
    try:
        yield
    finally:
        services.ConsolePopen, parameter.RayParams = theirs


def _knock(address: str) -> None:
    """Raise ConnectionError at once when nothing listens there; Ray itself would try for minutes."""
    place = host_and_port(address)
    if place is not None:
        try:
            socket.create_connection(place, timeout=_KNOCK_S).close()
        except OSError as error:
            raise ConnectionError(error.strerror or str(error)) from None


def _check_size(cluster: ClusterSpec) -> None:
    """Refuse a job with more ranks than the cluster can ever hold."""
    import ray

    resource, _ = cluster.rank_resource
    alive = [int(node["Resources"].get(resource, 0)) for node in ray.nodes() if node["Alive"]]
    problem = cluster.why_too_large(alive)
    if problem:
        raise InputError(problem)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _default_token() -> Path:
    return Path.home() / ".ray" / "auth_token"
