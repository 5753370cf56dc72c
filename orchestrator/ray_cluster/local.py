"""Starts a private Ray on this host for one job, on loopback if its ranks allow that; or joins a running cluster."""

import logging
import os
import resource
import secrets
import sys
from contextlib import suppress
from pathlib import Path

from sdnet.errors import InputError
from sdnet.paths import printable_path

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
_LEAST_OBJECT_STORE = 128 << 20
_OBJECT_STORES_IN_ADDRESSES = 16
# The object store is one file, which Ray makes a little larger than the store.
_OBJECT_STORES_IN_FILE = 2
# With two ranks a rank opens 72 files and the raylet 66; with a limit of 64 the raylet aborts.
_LEAST_OPEN_FILES = 128


def refuse_tight_limits() -> None:
    """Raise InputError when the shell limits open files (`ulimit -n`) or the size of a file (`ulimit -f`) too much.

    Ray raises the soft limit of open files to the hard one itself.
    """
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < _LEAST_OPEN_FILES:
        raise InputError(
            f"this shell limits a process to {limit} open files (`ulimit -n`), and Ray needs {_LEAST_OPEN_FILES}; "
            "raise the limit"
        )
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    least = _LEAST_OBJECT_STORE * _OBJECT_STORES_IN_FILE
    if limit != resource.RLIM_INFINITY and limit < least:
        raise InputError(
            f"this shell limits a file to {limit >> 10} KiB (`ulimit -f`), and Ray's object store needs "
            f"{least >> 10}; raise the limit"
        )


def prepare_token() -> None:
    """Give Ray a token that only this process and its children know, unless the user has set one.

    A token in ~/.ray/auth_token belongs to some cluster; a job on this host does not need to know it. An
    empty variable sets none: with it Ray would write a token of its own to that file.
    Call it before Ray is imported.
    """
    if os.environ["RAY_AUTH_MODE"].lower() != "token":
        logger.warning(
            "RAY_AUTH_MODE is %r: every user of this host can run code in this job; set it to token",
            os.environ["RAY_AUTH_MODE"],
        )
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        if not os.environ.get(name, "").strip():
            os.environ.pop(name, None)
    if "RAY_AUTH_TOKEN" not in os.environ and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def start_ray(folder: Path, *, on_loopback: bool) -> None:
    """`ray.init` for one job. folder: where Ray keeps its files.

    on_loopback: no port of Ray, of the ranks' store or of their collectives can be reached from another
    host. Ranks on Ascend keep the host's own address: HCCL and rank tables need it.
    """
    import ray

    from orchestrator.engine.ray_train.ray_start import (
        command_line_shown_as,
        job_settings,
        ray_for_one_job,
    )

    interrupt_nobody()
    with ray_for_one_job(), command_line_shown_as(printable_command_line()):
        ray.init(
            address="local",
            job_config=job_settings(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=_object_store_bytes(),
            _temp_dir=str(folder),
            _node_ip_address=LOOPBACK if on_loopback else None,
        )


def _object_store_bytes() -> int | None:
    """The size of Ray's object store where the shell limits addresses or files (`ulimit -v`, `ulimit -f`); else None.

    By default the store is 30 % of the host's memory, in one file, and the raylet maps it twice. If a limit does not
    allow that, `ray.init` waits for ever. Our jobs put only small objects into the store.
    """
    shares = {resource.RLIMIT_AS: _OBJECT_STORES_IN_ADDRESSES, resource.RLIMIT_FSIZE: _OBJECT_STORES_IN_FILE}
    limits = {kind: resource.getrlimit(kind)[0] for kind in shares}
    allowed = [limit // shares[kind] for kind, limit in limits.items() if limit != resource.RLIM_INFINITY]
    return max(_LEAST_OBJECT_STORE, min(allowed)) if allowed else None


def interrupt_nobody() -> None:
    """Let this process, and all that Ray starts, not interrupt a rank's kernels when they wake up.

    The threads of a kernel share their work evenly, so an interruption of one delays all.
    """
    # It only saves time. A user's idle process (`chrt --idle`) may not leave its class, and some sandboxes forbid all.
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def join_ray(address: str, *, submitted: bool) -> None:
    """`ray.init` on a running cluster. address: host:port. submitted: Ray has prepared this job, and its settings."""
    import ray

    from orchestrator.engine.ray_train.ray_start import command_line_shown_as, job_settings

    with command_line_shown_as(printable_command_line()):
        ray.init(
            address=address,
            job_config=job_settings(submitted=submitted),
            log_to_driver=False,
            logging_level=logging.ERROR,
        )


def printable_command_line() -> str:
    """The command line of this process in UTF-8: Ray 2.60 fails if a path in it has another encoding, such as GBK."""
    return printable_path(" ".join(sys.orig_argv))
