"""Tests the network of the devices: each device pings its neighbour on the next host."""

from collections.abc import Mapping, Sequence
from functools import partial

from orchestrator.ascend.inventory import hccn
from orchestrator.ascend.inventory.device_report import HostInventory
from orchestrator.ascend.inventory.host_tools import AscendHostTools, ToolFailed
from orchestrator.ascend.inventory.npu_smi import UnreadableOutput
from orchestrator.check.judge import Finding
from orchestrator.engine.host.every_host import ask_every_host

Targets = Mapping[str, Mapping[int, str]]


def ping_neighbours(inventories: Sequence[HostInventory]) -> tuple[Finding, ...]:
    """Findings after every device has pinged its neighbour. A cluster of one host has no neighbours."""
    targets = neighbours(inventories)
    if not targets:
        return ()
    findings = []
    for answer in ask_every_host(partial(ping_from_host, targets=targets), timeout_s=300.0):
        for device, lost in (answer.value or {}).items():
            findings.append(_judged(answer.address, device, targets[answer.address][device], lost))
        if answer.value is None:
            findings.append(Finding(answer.address, "ping", "fail", answer.error, "look at the host"))
    return tuple(findings)


def neighbours(inventories: Sequence[HostInventory]) -> dict[str, dict[int, str]]:
    """For each host address and device, the address of the device at the same position on the next host.

    The last host pings the first. Devices without an address are left out.
    """
    if len(inventories) < 2:
        return {}
    ring = [*inventories[1:], inventories[0]]
    return {
        host.address: {
            device.device_id: other.address
            for device, other in zip(host.devices, following.devices, strict=False)
            if device.address and other.address
        }
        for host, following in zip(inventories, ring, strict=True)
    }


def ping_from_host(address: str, targets: Targets) -> dict[int, float | str]:
    """On a host: the percentage of packets that each of its devices lost, or why it is unknown."""
    tools = AscendHostTools.of_this_host()
    lost: dict[int, float | str] = {}
    for device, target in targets.get(address, {}).items():
        family = ("-inet6", "-g", "ipv6_address") if ":" in target else ("-g", "address")
        try:
            lost[device] = hccn.parse_ping_loss(tools.hccn_tool("-i", str(device), "-ping", *family, target))
        except (ToolFailed, UnreadableOutput) as error:
            lost[device] = str(error)
    return lost


def _judged(host: str, device: int, target: str, lost: float | str) -> Finding:
    seen = f"NPU {device} to {target}: " + (lost if isinstance(lost, str) else f"{lost:.0f} % lost")
    if lost == 0.0:
        return Finding(host, "ping", "ok", seen)
    if isinstance(lost, str):
        return Finding(host, "ping", "fail", seen, "run that command on the host")
    return Finding(host, "ping", "fail", seen, "look at cables, switch, VLAN and gateway of both devices")
