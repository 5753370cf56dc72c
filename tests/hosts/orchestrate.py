"""`sdnet-orchestrate` as a program of the host that it runs on; its first argument is that host's address.

Ray connects a driver to a node whose process it sees, the head's first. The hosts of the bed see each
other's processes, so every driver would connect to the head, and other processes would not find its objects.
"""

import functools
import sys

from orchestrator.ray_cluster.environment import prepare_environment

if __name__ == "__main__":
    prepare_environment()
    import ray

    from orchestrator.cli import main

    ray.init = functools.partial(ray.init, _node_ip_address=sys.argv.pop(1))
    main()
