"""Collects the facts about one host for `check`. Runs on that host, does not judge, and writes only its probe file."""

import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

from orchestrator.ascend.inventory.device_report import HostInventory
from orchestrator.ascend.inventory.host_tools import AscendHostTools, text_if_readable
from orchestrator.engine.host.left_over import LeftOver, end_processes, left_over_processes
from orchestrator.engine.host.survey import inventory_of_host
from orchestrator.job.memory import memory_bytes

PACKAGES = ("sdnet-orchestrator", "mindspore", "ray", "numpy", "opencv-python-headless")
# HCCL's host ports, one for each device of the host. HCCL_IF_BASE_PORT changes the first one.
HCCL_BASE_PORT, HCCL_PORTS = 60000, 16
_PROBE_BYTES = 32 * 2**20
_CHUNK = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Questions:
    """What to check on a host. `probe`: a directory on the job's storage with a file `token` in it.

    data: the images (or the prepared files) of the job; None for synthetic pairs.
    """

    probe: Path
    token: str
    data: Path | None
    ascend: bool
    stated: Mapping[str, Mapping[int, str]]
    clean: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageFacts:
    """How the host accesses the job's storage; `error` says why it cannot. Speeds in MB/s."""

    error: str = ""
    write_mb_s: float = 0.0
    read_mb_s: float = 0.0
    free_bytes: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class HostFacts:
    """The facts about one host. Sizes in bytes. clock: its unix seconds at the beginning and at the end.

    memory_total: of the host, or of its container if that has less. versions: None
    for what is not installed. inventory: None unless the job runs on Ascend. stale_cann: variables that name a
    directory without CANN.
    """

    versions: dict[str, str | None]
    clock: tuple[float, float]
    inventory: HostInventory | None
    busy_ports: dict[int, str]
    left_over: tuple[LeftOver, ...]
    cleaned: bool
    storage: StorageFacts
    temporary_free: int
    shared_memory_total: int
    shared_memory_free: int
    memory_total: int
    stale_cann: tuple[str, ...]
    data_present: bool | None


def gather(address: str, questions: Questions) -> HostFacts:
    """Answer the questions for this host."""
    began = time.time()
    tools = AscendHostTools.of_this_host()
    left_over = left_over_processes()
    if questions.clean:
        end_processes(left_over)
    inventory = inventory_of_host(address, questions.stated) if questions.ascend else None
    storage = _storage(questions.probe, questions.token, address)
    shared = shutil.disk_usage("/dev/shm")
    data = questions.data
    return HostFacts(
        versions={**_package_versions(), **(_ascend_versions(tools, inventory) if inventory else {})},
        inventory=inventory,
        busy_ports=_busy_ports() if questions.ascend else {},
        left_over=left_over,
        cleaned=questions.clean,
        storage=storage,
        temporary_free=shutil.disk_usage(tempfile.gettempdir()).free,
        shared_memory_total=shared.total,
        shared_memory_free=shared.free,
        memory_total=memory_bytes(),
        stale_cann=tools.stale_cann_variables() if questions.ascend else (),
        data_present=None if data is None else os.access(data, os.R_OK | os.X_OK),
        # Last, so that all other facts are collected between the two times.
        clock=(began, time.time()),
    )


def _package_versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def _ascend_versions(tools: AscendHostTools, inventory: HostInventory) -> dict[str, str | None]:
    driver = _version_in(tools.driver_version) or inventory.npu_smi_version
    return {"cann": version_of_cann(tools), "driver": driver}


def version_of_cann(tools: AscendHostTools) -> str | None:
    """The version of the CANN that processes of this host use; None when no file states it."""
    return next((found for path in tools.cann_versions() if (found := _version_in(path))), None)


def _version_in(path: Path) -> str | None:
    """The first version in a file of CANN or of the driver, as `Version=8.0` or `[7.0:CANN-7.0]`."""
    text = text_if_readable(path)
    found = re.search(r"(?:^|_)version\s*=\s*\[?([0-9][\w.]*)", text, flags=re.IGNORECASE | re.MULTILINE)
    return found.group(1) if found else None


def _busy_ports() -> dict[int, str]:
    """HCCL's host ports that are already in use, with their state: `LISTEN`, or that of a connection."""
    ports = range(HCCL_BASE_PORT, HCCL_BASE_PORT + HCCL_PORTS)
    busy: dict[int, str] = {}
    for connection in psutil.net_connections("tcp"):
        if (
            connection.laddr
            and connection.laddr.port in ports
            and busy.get(connection.laddr.port) != "LISTEN"
        ):
            busy[connection.laddr.port] = connection.status
    return dict(sorted(busy.items()))


def _storage(probe: Path, token: str, address: str) -> StorageFacts:
    """Read the launcher's token, then write and read a file, and measure the speed."""
    try:
        if (probe / "token").read_text() != token:
            return StorageFacts(error=f"{probe.parent} is another directory here than on the launching host")
        mine = probe / f"speed_{address.replace(':', '_')}"
        write_s, read_s = _timed_write(mine), _timed_read(mine)
        mine.unlink()
        free = shutil.disk_usage(probe).free
    except OSError as error:
        return StorageFacts(error=f"{error.strerror or error}: {probe.parent}")
    megabytes = _PROBE_BYTES / 1e6
    return StorageFacts(write_mb_s=megabytes / write_s, read_mb_s=megabytes / read_s, free_bytes=free)


def _timed_write(path: Path) -> float:
    chunk = os.urandom(_CHUNK)
    began = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(_PROBE_BYTES // _CHUNK):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
        # The file must be read from the storage, not from the page cache.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return time.perf_counter() - began


def _timed_read(path: Path) -> float:
    began = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.read(_CHUNK):
            pass
    return time.perf_counter() - began
