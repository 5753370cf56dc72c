"""What is known about a host and its devices, and which of them a job may be placed on. Pure."""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from orchestrator.ascend.device_groups import SOCS, Soc
from orchestrator.ascend.inventory.fault_codes import DeviceFault
from orchestrator.ascend.inventory.npu_smi_table import DeviceProcess
from orchestrator.ascend.placement import AscendHost, Npu

HEALTHY = "OK"
# Health states with error codes decide by the codes. Others (Critical, UNKNOWN, offline) are always bad.
_JUDGED_BY_CODES = ("Warning", "Alarm")
_SOUND_NETWORK = ("Success", "Init")
_FAMILIES: tuple[tuple[str, Soc], ...] = (
    (r"910B\d.*", "910b"),
    (r"910(_93.*|C.*|A3.*)?", "a3"),
    (r"910(A|B|PRO ?[AB]|PREMIUM ?A)", "910a"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceReport:
    """One device of a host. `link` and `net_health` are None where the tool could not tell.

    device_id: physical id. logical_id: its number for CANN and Ray in this container.
    super_device_id and super_pod_id: only where an A3 host is in a super pod. processes is None
    where npu-smi lists no processes at all (old versions), so it is unknown whether the device is busy.
    """

    device_id: int
    logical_id: int | None = None
    model: str
    health: str = HEALTHY
    faults: tuple[DeviceFault, ...] = ()
    hbm_used_mb: int | None = None
    hbm_total_mb: int | None = None
    numa_node: int | None = None
    address: str | None = None
    address_source: str = ""
    link: str | None = None
    net_health: str | None = None
    super_device_id: int | None = None
    super_pod_id: str | None = None
    processes: tuple[DeviceProcess, ...] | None = ()

    @property
    def number_in_cann(self) -> int:
        return self.device_id if self.logical_id is None else self.logical_id

    def faults_of_interest(self, *, needs_network: bool) -> tuple[DeviceFault, ...]:
        """The faults, the worst first; without those of the network port if the group does not need it."""
        return tuple(fault for fault in self.faults if needs_network or not fault.of_network)

    def unusable(self, *, needs_network: bool, ours: frozenset[int] = frozenset()) -> str:
        """Why no rank may be placed here; empty when one may.

        needs_network: the group has several hosts, so the device's own port must work. As in MindCluster's
        device plug-in, a link that is DOWN is a fault, and a port that is still initialising is not.
        ours: ids of processes that do not make the device busy.
        """
        if is_another_chip(self.model):
            return f"{self.model} is no 910A, 910B or A3"
        worst = next(iter(self.faults_of_interest(needs_network=needs_network)), None)
        tolerable = self.health in _JUDGED_BY_CODES and self.faults and (not worst or worst.level.usable)
        if self.health != HEALTHY and not tolerable:
            return f"health {self.health}" + (f", {worst}" if worst else "")
        holders = [process for process in self.processes or () if process.pid not in ours]
        if holders:
            return "busy: " + ", ".join(f"process {p.pid} {p.name}".rstrip() for p in holders)
        if needs_network and (self.link or "").upper() == "DOWN":
            return "network link DOWN"
        if needs_network and self.net_health and self.net_health.capitalize() not in _SOUND_NETWORK:
            return f"network health: {self.net_health}"
        return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class HostInventory:
    """One host. `numa_cpus`: CPUs this job may use, by NUMA node. `problems`: what is not known, and why."""

    address: str
    devices: tuple[DeviceReport, ...] = ()
    numa_cpus: dict[int, tuple[int, ...]]
    memory_bytes: int
    npu_smi_version: str | None = None
    problems: tuple[str, ...] = ()

    def only(self, device_ids: Collection[int]) -> "HostInventory":
        """The same host with only these devices. A device that does not exist is added to `problems`."""
        kept = tuple(device for device in self.devices if device.device_id in device_ids)
        missing = sorted(set(device_ids) - {device.device_id for device in kept})
        named = tuple(
            f"{self.address}: the job names NPU {device}, but the host has none" for device in missing
        )
        left_out = {
            without_device_file(self.address, one.device_id) for one in self.devices if one not in kept
        }
        problems = tuple(problem for problem in self.problems if problem not in left_out)
        return replace(self, devices=kept, problems=problems + named)

    def physical_id(self, number_in_cann: int) -> int | None:
        """Physical id of the device that CANN and Ray know by this number; None when there is none."""
        return next((d.device_id for d in self.devices if d.number_in_cann == number_in_cann), None)

    def host(self, *, needs_network: bool, ours: frozenset[int] = frozenset()) -> AscendHost:
        """The host as an input of `placement`; in a super pod only when all of its devices are in the same one."""
        pods = {device.super_pod_id for device in self.devices}
        pod = next(iter(pods)) if len(pods) == 1 else None
        return AscendHost(
            address=self.address,
            super_pod_id=pod,
            npus=tuple(
                Npu(
                    device_id=device.device_id,
                    logical_id=device.logical_id,
                    device_ip=device.address,
                    super_device_id=device.super_device_id if pod is not None else None,
                    unusable=device.unusable(needs_network=needs_network, ours=ours),
                )
                for device in self.devices
            ),
        )


def without_device_file(address: str, device: int) -> str:
    """The problem of a device that npu-smi lists and that this container cannot open."""
    return (
        f"{address}: npu-smi lists NPU {device}, but /dev/davinci{device} is not there; give it to the container, "
        "or choose other devices"
    )


def soc_of(model: str) -> Soc | None:
    """The chip family of a model name of npu-smi, CANN or MindCluster; None when the name does not show it.

    `910B` without a digit is of the first generation, as 910A, 910ProB and 910PremiumA are. With a digit it
    is of the second (910B1 to 910B4, 910B2C). npu-smi calls a die of A3 `Ascend910`.
    """
    name = re.sub(r"^ASCEND[\s_-]*", "", model.strip().upper())
    for pattern, soc in _FAMILIES:
        if re.fullmatch(pattern, name):
            return soc
    return None


def meant_chip(model: str) -> str:
    """What to write as `soc` for a model such as 910B3, or a product such as A2; empty if unknown."""
    family, small = soc_of(model), model.lower()
    if small == "910b":
        return "write 910b for chips 910B1 to 910B4, or 910a for a 910B without a digit, the first generation"
    if re.fullmatch(r"(ascend[\s_-]*)?910", small):
        return (
            "write 910a for the first generation, 910b for chips 910B1 to 910B4, "
            "or a3 where npu-smi shows two chips for each NPU"
        )
    if small == "a2":
        return "A2 products have chips of the family 910b: write 910b"
    if small in SOCS:
        return f"write {small}"
    if family is None:
        return ""
    return f"that chip is of the family {family}: write {family}"


def is_another_chip(model: str) -> bool:
    """True for a chip that is known and not supported, such as 310P3 or 950 (which CANN also calls Ascend910_95)."""
    return re.match(r"(ASCEND[\s_-]*)?(310|610|910A5|910_95|950)", model.strip().upper()) is not None


def hosts_to_place_on(
    inventories: Collection[HostInventory], ours: frozenset[int] = frozenset()
) -> tuple[AscendHost, ...]:
    """Hosts as an input of `placement`. Network ports matter only when there are several hosts."""
    return tuple(host.host(needs_network=len(inventories) > 1, ours=ours) for host in inventories)
