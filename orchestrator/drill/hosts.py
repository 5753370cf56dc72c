"""Calls functions on the hosts of a job: on this host, or through the Ray cluster."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from orchestrator.drill import link
from orchestrator.engine.host.every_host import ask_every_host
from orchestrator.job.spec.job_spec import ClusterSpec
from orchestrator.ray_cluster.session import ray_session

_ASK_S = 60.0
_HEAD = "node:__internal_head__"


class Hosts(Protocol):
    """The hosts of a job's cluster, as a drill needs them."""

    def spare(self) -> dict[str, str]:
        """Hosts other than the head and this one, each with the reason why its link cannot be cut, or empty."""

    def is_alive(self, address: str) -> bool:
        """Whether the host is in the cluster now."""

    def call(self, address: str, function: Callable[[str], str]) -> str:
        """The result of `function(address)` on that host, or the reason why the call failed."""


class ThisHost:
    """The only host of a job whose cluster is local."""

    def spare(self) -> dict[str, str]:
        return {}

    def is_alive(self, address: str) -> bool:
        return True

    def call(self, address: str, function: Callable[[str], str]) -> str:
        return function(address)


class RayHosts:
    """The hosts of the Ray cluster that this process is connected to."""

    def spare(self) -> dict[str, str]:
        import ray

        here = ray.util.get_node_ip_address()
        addresses = {
            node["NodeManagerAddress"]
            for node in ray.nodes()
            if node["Alive"] and _HEAD not in node["Resources"] and node["NodeManagerAddress"] != here
        }
        answers = ask_every_host(link.why_it_cannot_be_cut, _ASK_S, only=addresses)
        return {a.address: a.error if a.value is None else a.value for a in answers}

    def is_alive(self, address: str) -> bool:
        import ray

        return any(node["Alive"] for node in ray.nodes() if node["NodeManagerAddress"] == address)

    def call(self, address: str, function: Callable[[str], str]) -> str:
        for answer in ask_every_host(function, _ASK_S, only={address}):
            return answer.error if answer.value is None else answer.value
        return f"host {address} is not in the Ray cluster"


@contextmanager
def hosts_of(cluster: ClusterSpec) -> Iterator[Hosts]:
    """The hosts of the job, for as long as the block lasts."""
    if cluster.address == "local":
        yield ThisHost()
    else:
        with ray_session(cluster):
            yield RayHosts()
