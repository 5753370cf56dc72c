"""Finds leftovers of ended jobs in a Ray cluster: actors that live, placement groups that remain.

As a program it prints a line for each; RAY_ADDRESS names the cluster.
"""

import sys
import time
from collections.abc import Callable, Sequence

# Ray ends a driver's actors soon after the driver.
_GRACE_S = 10.0
# Ray Train creates one per cluster, which stays until Ray ends.
_RAYS_OWN = "_AutoscalingCoordinatorActor"


def held_in_vain(run: Callable[[Sequence[str]], str]) -> list[str]:
    """Leftovers after a short grace time; `run` runs a command on the cluster and returns its output."""
    until = time.monotonic() + _GRACE_S
    held = run([sys.executable, __file__])
    while held and time.monotonic() < until:
        held = run([sys.executable, __file__])
    return held.splitlines()


if __name__ == "__main__":
    from ray.util.state import list_actors, list_placement_groups

    for actor in list_actors(filters=[("state", "!=", "DEAD"), ("class_name", "!=", _RAYS_OWN)]):
        print(f"actor {actor.class_name} ({actor.state})")
    for group in list_placement_groups(filters=[("state", "!=", "REMOVED")]):
        print(f"placement group {group.placement_group_id} ({group.state})")
