"""Fake NPUs on the hosts of the bed."""

from typing import Any

from orchestrator.ascend.inventory.host_tools import ROOT_VARIABLE
from tests.ascend_fakes.host import install
from tests.hosts.host import Host


def give_npus(host: Host, description: dict[str, Any]) -> None:
    """Before Ray starts, give the host the described devices, and Ray a CPU for each.

    The host is like a container that sees no other devices: CANN and Ray count them from 0.
    """
    install(host.directory / "ascend", description)
    devices = range(len(description["devices"]))
    host.environment |= {
        ROOT_VARIABLE: str(host.disk / "ascend"),
        "ASCEND_RT_VISIBLE_DEVICES": ",".join(map(str, devices)),
    }
    host.ray_options = (f"--num-cpus={len(devices)}", f'--resources={{"NPU": {len(devices)}}}')
