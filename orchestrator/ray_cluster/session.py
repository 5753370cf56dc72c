"""The Ray cluster a job runs on: started here, or joined, with token authentication."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from orchestrator.ray_cluster.address import address_to_join
from orchestrator.ray_cluster.environment import check_environment, prepare_environment
from orchestrator.ray_cluster.join import (
    NoClusterAnswers,
    check_cluster,
    our_token,
    warn_of_open_cluster,
    warn_of_readable_token,
)
from orchestrator.ray_cluster.local import join_ray, prepare_token, refuse_tight_limits, start_ray
from orchestrator.ray_cluster.private_folder import private_folder
from orchestrator.ray_cluster.signal_handlers import keeping_signal_handlers
from sdnet.errors import InputError

# Ray sets it for the entrypoint of a submitted job.
_IN_A_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


class WantedCluster(Protocol):
    """What a job states about its cluster. A Protocol, so that this package does not depend on the job's spec."""

    @property
    def address(self) -> str:
        """`local`, `auto` or host:port."""

    @property
    def device(self) -> str:
        """`cpu` or `ascend`."""

    @property
    def rank_resource(self) -> tuple[str, int]:
        """The name of the Ray resource that a rank takes, and how much of it."""

    def why_too_large(self, available: Sequence[int]) -> str:
        """Why the hosts can never hold the job; empty if they can. available: amount of that resource on each host."""


@contextmanager
def ray_session(cluster: WantedCluster, *, must_hold_job: bool = True) -> Iterator[None]:
    """Connect to the cluster of the job for as long as the block lasts.

    `local` starts Ray on this host with a token and a folder that only this job knows, and stops it at
    the end. Raises InputError when Ray cannot be started or the cluster cannot be joined, when the
    environment has settings that a job cannot run with, and, with `must_hold_job`, when the cluster is too
    small for the job.
    """
    check_environment()
    prepare_environment()
    with ExitStack() as ending:
        if cluster.address == "local":
            _start(cluster, ending)
        else:
            _join(cluster, ending)
        if must_hold_job:
            _check_size(cluster)
        yield


def check_session(cluster: WantedCluster) -> None:
    """Raise InputError, as `ray_session` would, for what is known before Ray starts or is joined. Warns of nothing."""
    check_environment()
    prepare_environment()
    if cluster.address == "local":
        refuse_tight_limits()
    else:
        _found(cluster.address)


def refuse_storage_of_ray(storage: str) -> None:
    """Refuse a relative `storage` inside `ray job submit`: it would be in a copy that Ray deletes.

    Raises InputError.
    """
    if _IN_A_RAY_JOB in os.environ and not Path(storage).expanduser().is_absolute():
        raise InputError(
            f"storage is {storage!r}, which in a submitted job is in Ray's copy of the submitted folder, "
            "and Ray deletes that; give an absolute path that every host reaches: "
            "--set storage=/mnt/shared/runs"
        )


def _start(cluster: WantedCluster, ending: ExitStack) -> None:
    """Start Ray here; `ending` stops it and removes its folder."""
    refuse_tight_limits()
    prepare_token()
    our_token("'local'")
    warn_of_readable_token(os.environ)
    folder = ending.enter_context(private_folder())
    import ray

    ending.callback(_leave_ray)
    try:
        with keeping_signal_handlers():
            start_ray(folder, on_loopback=cluster.device == "cpu")
    except Exception as error:
        known = (OSError, RuntimeError, ValueError, LookupError, ray.exceptions.RayError)
        # Ray raises a plain Exception when a process of it "timed out during startup".
        if not isinstance(error, known) and type(error) is not Exception:
            raise
        raise InputError(
            f"Ray did not start on this host ({_line(error)}); look for a busy host, a full disk, little memory, "
            "few open files or few addresses: `uptime`, `df -h /tmp /dev/shm`, `free -h`, `ulimit -n`, `ulimit -v`"
        ) from None


def _join(cluster: WantedCluster, ending: ExitStack) -> None:
    """Join a running cluster; `ending` leaves it."""
    warn_of_readable_token(os.environ)
    found, name, asks_for_token = _found(cluster.address)
    if not asks_for_token:
        warn_of_open_cluster(name)
    import ray

    ending.callback(_leave_ray)
    try:
        with keeping_signal_handlers():
            join_ray(found, submitted=_IN_A_RAY_JOB in os.environ)
    except (OSError, RuntimeError, ValueError, LookupError, ray.exceptions.RayError) as error:
        raise InputError(
            f"cluster.address is {name} and that Ray cluster could not be joined ({_line(error)}); "
            "run the same versions of Ray and Python as it does, as a user who may use its temporary folder"
        ) from None


def _found(stated: str) -> tuple[str, str, bool]:
    """host:port of a cluster that a job can join, what the user calls it, and whether it asks for a token.

    stated: `cluster.address`. Raises InputError.
    """
    address = address_to_join(stated, os.environ)
    from orchestrator.engine.ray_train.ray_core import current_cluster_file, find_cluster

    name = _name(stated, address)
    try:
        found = find_cluster(address)
    except (OSError, ValueError) as error:
        if address == "auto" and (file := current_cluster_file()).is_file():
            raise InputError(
                f"cluster.address is 'auto' and {file} names no address of a cluster ({_line(error)}); remove that "
                "file, or give host:port"
            ) from None
        raise InputError(
            f"cluster.address is {name} and no Ray cluster was found on this host ({_line(error)}); "
            "start one with `ray start --head`, or use address: local"
        ) from None
    name = _name(stated, address, found)
    try:
        return found, name, check_cluster(found, name)
    except NoClusterAnswers as error:
        if address == "auto":
            _refuse_stale_file(found, error.reason)
        raise


def _refuse_stale_file(found: str, reason: str) -> None:
    """Raise InputError if the address is from the file of a cluster that was killed: `ray stop` removes the file."""
    from orchestrator.engine.ray_train.ray_core import current_cluster_file

    if _is_current(found):
        raise InputError(
            f"cluster.address is 'auto' and {current_cluster_file()} names {found}, where no Ray cluster answers "
            f"({reason}); remove that file if the cluster has ended, or give host:port"
        ) from None


def _is_current(found: str) -> bool:
    """Whether `ray start` wrote this address into its file."""
    from orchestrator.engine.ray_train.ray_core import current_cluster_file, find_cluster

    try:
        return find_cluster(current_cluster_file().read_text().strip()) == found
    except (OSError, ValueError):
        return False


def _name(stated: str, given: str, found: str = "") -> str:
    """What the user calls the cluster, and what that means. given: `stated`, or RAY_ADDRESS. found: for Ray."""
    notes = [f"RAY_ADDRESS is {given!r}"] if given != stated else []
    if found and found != given:
        notes.append(f"Ray connects to {found}")
    if found and given == "auto" and not _is_current(found):
        notes.append("that is the Ray of a process on this host, perhaps private to another job or user")
    return f"{stated!r} ({'; '.join(notes)})" if notes else repr(stated)


def _leave_ray() -> None:
    """End the connection, and Ray itself if it was started here. Ray's C++ resets the handler of SIGTERM then."""
    import ray

    with keeping_signal_handlers():
        ray.shutdown()


def _check_size(cluster: WantedCluster) -> None:
    """Refuse a job with more ranks than the cluster can ever hold."""
    import ray

    resource, _ = cluster.rank_resource
    alive = [int(node["Resources"].get(resource, 0)) for node in ray.nodes() if node["Alive"]]
    problem = cluster.why_too_large(alive)
    if problem:
        raise InputError(problem)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
