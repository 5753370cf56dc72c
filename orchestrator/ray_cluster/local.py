"""Starting Ray on this host for one job: private, on loopback where ranks allow it, and gone at the end."""

import logging
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sdnet.paths import printable_path

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"


def prepare_token() -> None:
    """Give Ray a token that only this process and its children know, unless the user has set one.

    A token in ~/.ray/auth_token belongs to some cluster; a job on this host does not need to know it.
    Must come before Ray is imported.
    """
    if os.environ["RAY_AUTH_MODE"].lower() != "token":
        logger.warning(
            "RAY_AUTH_MODE is %r: every user of this host can run code in this job; set it to token",
            os.environ["RAY_AUTH_MODE"],
        )
    if "RAY_AUTH_TOKEN" not in os.environ and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def start_ray(folder: Path, *, on_loopback: bool, **settings: Any) -> None:
    """`ray.init` for one job. folder: where Ray keeps its files.

    on_loopback: no port of Ray, of the ranks' store or of their collectives can be reached from another
    host. Ranks on Ascend keep the host's own address: HCCL and rank tables need it.
    """
    import ray

    # Processes that Ray starts inherit it, and then do not interrupt a rank's kernels when they wake up:
    # the threads of a kernel share their work evenly, so an interruption of one delays all.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    address = {"_node_ip_address": LOOPBACK} if on_loopback else {}
    with _fit_for_one_job():
        ray.init(address="local", include_dashboard=False, _temp_dir=str(folder), **address, **settings)


@contextmanager
def _fit_for_one_job() -> Iterator[None]:
    """Change what `ray.init` starts, where it has no setting for it.

    Each of Ray's processes gets a process group of its own, as its workers always do: a signal to
    the launcher's group, as `timeout` sends it, would end Ray before the ranks have saved. There is no
    cluster that could grow, and a rank's output goes to its log, so neither of the two monitors runs
    beside the ranks. And Ray replaces a loopback address by one that other hosts reach: not here.
    """
    from ray._private import parameter, services

    theirs = services.ConsolePopen, parameter.RayParams, services.resolve_ip_for_localhost
    services.ConsolePopen = partial(_in_a_group_of_its_own, services.ConsolePopen)
    parameter.RayParams = partial(parameter.RayParams, no_monitor=True, include_log_monitor=False)
    services.resolve_ip_for_localhost = lambda host: host
    try:
        yield
    finally:
        services.ConsolePopen, parameter.RayParams, services.resolve_ip_for_localhost = theirs


def _in_a_group_of_its_own(
    popen: Any, *arguments: Any, preexec_fn: Callable[[], object] | None = None, **settings: Any
) -> Any:
    def prepare() -> None:
        # It is blocked here while Ray starts (interruption.py), and Ray ends its processes with it.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        if preexec_fn is not None:
            preexec_fn()

    return popen(*arguments, preexec_fn=prepare, process_group=0, **settings)


def make_command_line_printable() -> None:
    """Ray 2.60 sends the command line to the cluster as UTF-8, and fails for a folder named in GBK."""
    from ray._private import utils

    command_line = " ".join(sys.orig_argv)
    if not command_line.isprintable():
        utils.get_entrypoint_name = lambda: printable_path(command_line)
