"""What Ray has no public interface for: the token, the cluster on this host, drained nodes, why an actor died."""

import logging
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

import ray
from ray._common.utils import get_ray_address_file
from ray._private.services import canonicalize_bootstrap_address_or_die
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
from ray.exceptions import RayActorError

# Ray's label of every node, with the id of the node as its value.
NODE_ID_LABEL = "ray.io/node-id"


class Death(Enum):
    """Why Ray says that an actor died."""

    OUT_OF_MEMORY = "out of memory"
    NODE_DIED = "its node died"
    OTHER = "other"


def find_token() -> str:
    """The token that Ray would send when it connects, or "" when there is none.

    Nothing is cached, so that Ray's own client reads the environment again. Raises ray.exceptions.AuthenticationError
    when the environment names a file that cannot be read.
    """
    loader = AuthenticationTokenLoader.instance()
    loader.reset_cache()
    try:
        token: str = loader.get_raw_token(ignore_auth_mode=True)
    finally:
        loader.reset_cache()
    return token


def find_cluster(address: str) -> str:
    """host:port to which Ray connects for `address`: for `auto` that of RAY_ADDRESS, or of the only cluster here.

    For `localhost` it is the address of this host in its network. Raises OSError, ValueError.
    Prints nothing: Ray would list the private clusters of other users as choices.
    """
    rays = logging.getLogger("ray._private.services")
    level = rays.level
    rays.setLevel(logging.CRITICAL)
    try:
        return canonicalize_bootstrap_address_or_die(address)
    finally:
        rays.setLevel(level)


def current_cluster_file() -> Path:
    """Where `ray start` writes the address of its cluster, for `auto`. It stays when the cluster is killed."""
    return Path(get_ray_address_file(None))


def draining_nodes() -> Mapping[str, float | None]:
    """Ids of the nodes that are being drained, with the deadline in unix seconds, None when there is none."""
    nodes = ray._private.state.state.get_draining_nodes()
    return {node: deadline_ms / 1000 if deadline_ms else None for node, deadline_ms in nodes.items()}


def why_it_died(error: RayActorError) -> Death:
    """The cause of death in Ray's table of actors; the error itself contains it only as text."""
    record = ray._private.state.actors(error.actor_id) if error.actor_id else {}
    cause = record.get("DeathCause")
    if cause is None:
        return Death.OTHER
    if cause.HasField("oom_context"):
        return Death.OUT_OF_MEMORY
    died = cause.actor_died_error_context
    if cause.HasField("actor_died_error_context") and died.reason == type(died).NODE_DIED:
        return Death.NODE_DIED
    return Death.OTHER
