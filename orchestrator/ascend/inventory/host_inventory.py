"""What an Ascend host has: devices, their health, addresses, processes; CPUs, NUMA nodes, memory.

`take_inventory` runs on the host itself (a Ray task, see `engine/host/survey.py`). A tool that fails does not end it:
`problems` lists what is unknown, with the host and every source that was tried.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import psutil

from orchestrator.ascend.inventory import hccn, npu_smi
from orchestrator.ascend.inventory.device_ids import with_both_ids
from orchestrator.ascend.inventory.device_report import (
    HEALTHY,
    DeviceReport,
    HostInventory,
    soc_of,
    without_device_file,
)
from orchestrator.ascend.inventory.fault_codes import faults_of
from orchestrator.ascend.inventory.host_tools import AscendHostTools, ToolBusy, ToolFailed, text_if_readable
from orchestrator.ascend.inventory.id_lists import ids_in_list
from orchestrator.ascend.inventory.npu_smi import ChipIds, UnreadableOutput, shortened
from orchestrator.ascend.inventory.npu_smi_table import ListedDevice, NpuSmiInfo, parse_info

_T = TypeVar("_T")


def take_inventory(
    address: str, stated: Mapping[int, str] | None = None, tools: AscendHostTools | None = None
) -> HostInventory:
    """Ask this host what it has. `stated`: addresses of devices that the job gives for this host.

    Addresses come from hccn_tool (IPv4, then IPv6), then /etc/hccn.conf, then `stated`.
    """
    survey = _Survey(address, tools or AscendHostTools.of_this_host(), stated or {})
    devices, version = survey.devices()
    return HostInventory(
        address=address,
        devices=devices,
        numa_cpus=numa_cpus(survey.tools),
        memory_bytes=psutil.virtual_memory().total,
        npu_smi_version=version,
        problems=tuple(survey.problems),
    )


def numa_cpus(tools: AscendHostTools) -> dict[int, tuple[int, ...]]:
    """CPUs that this process may run on, by NUMA node; all in node 0 where the kernel shows no nodes."""
    allowed = set(psutil.Process().cpu_affinity() or range(psutil.cpu_count() or 1))
    nodes: dict[int, tuple[int, ...]] = {}
    for path in sorted((tools.root / "sys/devices/system/node").glob("node[0-9]*/cpulist")):
        cpus = tuple(cpu for cpu in ids_in_list(text_if_readable(path)) if cpu in allowed)
        if cpus:
            nodes[int(path.parent.name.removeprefix("node"))] = cpus
    return nodes or {0: tuple(sorted(allowed))}


class _Survey:
    """Runs the tools of one host, and collects what they could not tell."""

    def __init__(self, address: str, tools: AscendHostTools, stated: Mapping[int, str]):
        self.address, self.tools, self.stated = address, tools, stated
        self.problems: list[str] = []

    def devices(self) -> tuple[tuple[DeviceReport, ...], str | None]:
        info = self._ask(lambda: parse_info(self.tools.npu_smi("info")))
        nodes = self.tools.device_nodes()
        mapped = None if info is None else self._mapping()
        if info is None:
            # A device of unknown health must not get a rank, even if that leaves no device at all.
            self._missing(nodes, "npu-smi says nothing about it")
            return (), None
        info = with_both_ids(info, mapped)
        listed = {device.device_id for device in info.devices}
        self._missing([node for node in nodes if node not in listed], "npu-smi does not list it")
        # A host without any node, as one with virtual devices (/dev/vdavinci*), says nothing about its devices.
        self.problems.extend(
            without_device_file(self.address, device)
            for device in sorted(listed - set(nodes) if nodes else ())
        )
        self._cross_check(info, mapped)
        conf = self._hccn_conf()
        # A call of a tool takes a second on real hosts, so devices are asked in parallel.
        with ThreadPoolExecutor(max_workers=8) as pool:
            reports = list(pool.map(lambda device: self._device(device, info, conf), info.devices))
        for _, problems in reports:
            self.problems.extend(problems)
        return tuple(report for report, _ in reports), info.version

    def _missing(self, nodes: tuple[int, ...] | list[int], why: str) -> None:
        self.problems.extend(f"{self.address}: /dev/davinci{node} is there, but {why}" for node in nodes)

    def _mapping(self) -> dict[tuple[int, int], ChipIds] | None:
        return self._ask(lambda: npu_smi.parse_mapping(self.tools.npu_smi("info", "-m")))

    def _cross_check(self, info: NpuSmiInfo, mapped: dict[tuple[int, int], ChipIds] | None) -> None:
        """Compare the lists of npu-smi: a failing card may be missing from one list and not yet from another."""
        shown = {(device.npu, device.chip) for device in info.devices}
        chips = dict(sorted(Counter(npu for npu, _ in shown).items()))
        counted = self._ask(lambda: npu_smi.parse_list(self.tools.npu_smi("info", "-l")))
        if counted is not None and counted != chips:
            self.problems.append(
                f"{self.address}: `npu-smi info -l` counts {counted} chips by NPU, its table {chips}"
            )
        for npu, chip in sorted(set(mapped or ()) - shown):
            self.problems.append(
                f"{self.address}: `npu-smi info -m` knows chip {chip} of NPU {npu}, its table does not"
            )
        for npu, chip in sorted(shown - set(shown if mapped is None else mapped)):
            self.problems.append(
                f"{self.address}: the table of npu-smi knows chip {chip} of NPU {npu}, `npu-smi info -m` does not"
            )

    def _ask(self, question: Callable[[], _T], problems: list[str] | None = None) -> _T | None:
        try:
            return question()
        except (ToolFailed, UnreadableOutput) as error:
            (self.problems if problems is None else problems).append(f"{self.address}: {error}")
            return None

    def _hccn_conf(self) -> dict[int, str] | None:
        """Addresses in /etc/hccn.conf; None when it is not there, as in many containers, or may not be read."""
        conf = self.tools.hccn_conf

        def read() -> dict[int, str] | None:
            try:
                text = conf.read_text(encoding="utf-8", errors="replace") if conf.is_file() else None
            except OSError as error:
                raise UnreadableOutput(str(conf), error.strerror or str(error)) from None
            return None if text is None else hccn.parse_hccn_conf(text)

        return self._ask(read)

    def _device(
        self, device: ListedDevice, info: NpuSmiInfo, conf: dict[int, str] | None
    ) -> tuple[DeviceReport, list[str]]:
        problems: list[str] = []
        chip, port = ("-i", str(device.npu), "-c", str(device.chip)), ("-i", str(device.device_id))
        health = None
        if device.health != HEALTHY:
            health = self._ask(
                lambda: npu_smi.parse_health(self.tools.npu_smi("info", "-t", "health", *chip)), problems
            )
        pod = None
        if soc_of(device.model) == "a3":
            pod = self._ask(
                lambda: npu_smi.parse_super_pod(self.tools.npu_smi("info", "-t", "spod-info", *chip)),
                problems,
            )
        address, source = self._address(device.device_id, conf, problems)
        report = DeviceReport(
            device_id=device.device_id,
            logical_id=device.logical_id,
            model=device.model,
            health=device.health,
            faults=faults_of(health.codes) if health else (),
            hbm_used_mb=device.hbm_used_mb,
            hbm_total_mb=device.hbm_total_mb or self._hbm_total_mb(device, problems),
            numa_node=self.tools.numa_node_of(device.bus_id),
            address=address,
            address_source=source,
            link=self._ask(lambda: hccn.parse_link(self.tools.hccn_tool(*port, "-link", "-g")), problems),
            net_health=self._ask(
                lambda: hccn.parse_net_health(self.tools.hccn_tool(*port, "-net_health", "-g")), problems
            ),
            super_device_id=pod and pod[0],
            super_pod_id=pod and pod[1],
            processes=None
            if info.processes is None
            else tuple(process for process in info.processes if process.device_id == device.device_id),
        )
        return report, problems

    def _hbm_total_mb(self, device: ListedDevice, problems: list[str]) -> int | None:
        """Memory from `npu-smi info -t usages`, for versions whose table has no column for it."""
        arguments = ("info", "-t", "usages", "-i", str(device.npu))
        chips = self._ask(lambda: npu_smi.parse_usages(self.tools.npu_smi(*arguments)), problems)
        return (chips or {}).get(device.chip, {}).get("HBM Capacity(MB)")

    def _address(
        self, device_id: int, conf: dict[int, str] | None, problems: list[str]
    ) -> tuple[str | None, str]:
        """Address of a device and where it was found; a problem that names every source otherwise."""
        tried: list[str] = []
        for family in ((), ("-inet6",)):
            arguments = ("-i", str(device_id), "-ip", *family, "-g")
            try:
                printed = self.tools.hccn_tool(*arguments)
                address = hccn.parse_address(printed)
            except ToolBusy as error:
                tried.append(str(error))
                # The port may have an IPv4 address, which HCCL prefers: do not take its IPv6 address instead.
                break
            except (ToolFailed, UnreadableOutput) as error:
                tried.append(str(error))
                continue
            if address:
                return address, "hccn_tool"
            said = next((line for line in printed.splitlines() if line.strip()), "")
            tried.append(
                f"hccn_tool {' '.join(arguments)} shows none" + (f", but {shortened(said)}" if said else "")
            )
        if conf and device_id in conf:
            return conf[device_id], str(self.tools.hccn_conf)
        tried.append(f"{self.tools.hccn_conf} {'has none' if conf is not None else 'cannot be used'}")
        if self.stated.get(device_id):
            return self.stated[device_id], "hosts of the job"
        tried.append("`hosts` of the job gives none")
        problems.append(f"{self.address}: NPU {device_id} has no address; tried: {'; '.join(tried)}")
        return None, ""
