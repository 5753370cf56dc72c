"""Makes Ray refresh the free resources of hosts while a group cannot start.

Ray's GCS counts the resources of a placement group as used before it sends the reservation to the host. If that
request is lost, Ray 2.60 does not count them as free again: it waits for a resource report of the host, and an idle
host sends none (https://github.com/ray-project/ray/pull/65271). The host is alive in Ray, but no group is ever placed
there. Any task that uses a little of a resource makes the host send a report.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

logger = logging.getLogger(__name__)

# On free hosts Ray places a group within about a second (docs/faults.md, part `started`).
_AFTER_S = 5.0
# A long interval, because each time a process starts on every host.
_AGAIN_AFTER_S = 30.0
_A_LITTLE = 0.001


@contextmanager
def asking_hosts_for_news(has_hosts: threading.Event) -> Iterator[None]:
    """Start the tasks on every host periodically, until the block ends or `has_hosts` is set."""
    threading.Thread(target=_ask_until, args=(has_hosts,), name="host news", daemon=True).start()
    try:
        yield
    finally:
        has_hosts.set()


def _ask_until(has_hosts: threading.Event) -> None:
    wait_s = _AFTER_S
    while not has_hosts.wait(wait_s):
        logger.info("the group waits for hosts; asking every host to report its resources")
        ask_for_news()
        wait_s = _AGAIN_AFTER_S


def ask_for_news() -> None:
    """Start a task that uses a little of a resource on every living host; does not wait for the tasks."""
    touch = ray.remote(num_cpus=0, max_retries=0)(_touch)
    for node in ray.nodes():
        if node["Alive"]:
            # Every host has this resource, and nothing else uses it, so the task starts at once.
            resources = {f"node:{node['NodeManagerAddress']}": _A_LITTLE}
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            touch.options(resources=resources, scheduling_strategy=here).remote()


def _touch() -> None:
    """No-op: only the resource that the task takes matters."""
