"""What `npu-smi` prints, read from text: devices, their processes, health, usage.

Knows the tables of 910A (`Chip Device`), 910B (`Chip`) and A3 (`Chip Phy-ID`, two dies a card)
whatever their frame width. Text that is cut off or garbled raises UnreadableOutput: a device
that was overlooked would be placed on.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.errors import OrchestratorError

_PAIR = re.compile(r"([0-9]{1,9})\s*/\s*([0-9]{1,9})")
_NUMBER = re.compile(r"[0-9]{1,9}")
_NO_SUPER_POD = 2**32 - 1
_SHOWN_CHARACTERS = 60


class UnreadableOutput(OrchestratorError):
    """A tool printed what we cannot read. Example: npu-smi was killed half way."""

    def __init__(self, tool: str, detail: str):
        super().__init__(tool, detail)
        self.tool, self.detail = tool, detail

    def __str__(self) -> str:
        return f"the output of `{self.tool}` cannot be read ({self.detail}); run it by hand on that host"


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedDevice:
    """A device (on A3: a die) as `npu-smi info` lists it; memory in MB, None when not shown."""

    npu: int
    chip: int
    device_id: int
    model: str
    health: str
    bus_id: str
    hbm_used_mb: int | None
    hbm_total_mb: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceProcess:
    """A process that holds a device; the name may be empty."""

    device_id: int
    pid: int
    name: str
    memory_mb: int


@dataclass(frozen=True, kw_only=True, slots=True)
class NpuSmiInfo:
    """`npu-smi info`: its version, every device, and who holds them (None: it lists no processes)."""

    version: str | None
    devices: tuple[ListedDevice, ...]
    processes: tuple[DeviceProcess, ...] | None


@dataclass(frozen=True, slots=True)
class Health:
    """`npu-smi info -t health`: the status, the error codes behind it, their text."""

    status: str
    codes: tuple[str, ...]
    information: str


def parse_info(text: str) -> NpuSmiInfo:
    """Read `npu-smi info`; raises UnreadableOutput when it is not whole."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines or not lines[-1].startswith("+"):
        raise UnreadableOutput("npu-smi info", "it ends before its last frame")
    version = re.search(r"npu-smi\s+(\S+)", text)
    section, numbered = "", False
    device_rows: list[list[str]] = []
    process_rows: list[list[str]] = []
    for line in lines:
        if not line.startswith("|"):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0].startswith("NPU") and len(cells) >= 3:
            section = "processes" if "Process id" in line else "devices"
        elif cells[0].startswith("Chip"):
            numbered = len(cells[0].split()) > 1
        elif section == "devices":
            device_rows.append(cells)
        elif section == "processes" and not cells[0].startswith("No running"):
            process_rows.append(cells)
    if not section:
        raise UnreadableOutput("npu-smi info", "no table of devices in it")
    devices = _listed_devices(device_rows, numbered)
    return NpuSmiInfo(
        version=version.group(1) if version else None,
        devices=devices,
        processes=_processes(process_rows, devices) if section == "processes" else None,
    )


def parse_list(text: str) -> dict[int, int]:
    """Read `npu-smi info -l`: chips of each NPU id; raises UnreadableOutput unless the total is met."""
    total: int | None = None
    chips: dict[int, int] = {}
    npu: int | None = None
    for key, value in _fields(text):
        if not _NUMBER.fullmatch(value):
            continue
        if key == "Total Count":
            total = int(value)
        elif key == "NPU ID":
            npu = int(value)
        elif key == "Chip Count" and npu is not None:
            chips[npu] = int(value)
    if total is None or len(chips) != total:
        raise UnreadableOutput("npu-smi info -l", f"total count {total}, but {len(chips)} NPUs follow")
    return chips


def parse_mapping(text: str) -> dict[tuple[int, int], int]:
    """Read `npu-smi info -m`: logic id of each (NPU id, chip id); rows of the Mcu are left out."""
    header, *rows = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line.strip()] or [[]]
    wanted = ("NPU ID", "Chip ID", "Chip Logic ID", "Chip Name")
    if not set(wanted) <= set(header):
        raise UnreadableOutput("npu-smi info -m", "no header with Chip Logic ID in it")
    mapping: dict[tuple[int, int], int] = {}
    for row in rows:
        values = dict(zip(header, row, strict=False))
        npu, chip, logic, name = (values.get(key, "") for key in wanted)
        if name.lower() == "mcu":
            continue
        if not (all(_NUMBER.fullmatch(value) for value in (npu, chip, logic)) and name):
            raise UnreadableOutput("npu-smi info -m", f"the row {' '.join(row)[:_SHOWN_CHARACTERS]!r}")
        mapping[int(npu), int(chip)] = int(logic)
    return mapping


def parse_health(text: str) -> Health:
    """Read `npu-smi info -t health -i N -c C`; NA stands for none."""
    fields = dict(_fields(text))
    status = fields.get("Health Status") or fields.get("Health")
    if not status:
        raise UnreadableOutput("npu-smi info -t health", "no Health Status in it")
    codes = tuple(re.findall(r"\b(?:0x)?([0-9A-Fa-f]{8})\b", fields.get("Error Code", "")))
    information = fields.get("Error Information", "NA")
    return Health(status, tuple(code.upper() for code in codes), "" if information == "NA" else information)


def parse_usages(text: str) -> dict[int, dict[str, int]]:
    """Read `npu-smi info -t usages -i N`: numbers by name for each chip; a group ENDS with its Chip ID."""
    chips: dict[int, dict[str, int]] = {}
    group: dict[str, int] = {}
    for key, value in _fields(text):
        if not _NUMBER.fullmatch(value):
            continue
        if key == "Chip ID":
            chips[int(value)] = group
            group = {}
        elif key not in ("NPU ID", "Chip Count"):
            group[key] = int(value)
    if not chips or group:
        raise UnreadableOutput("npu-smi info -t usages", "a group of it has no Chip ID at its end")
    return chips


def parse_super_pod(text: str) -> tuple[int, str] | None:
    """Read `npu-smi info -t spod-info`: (super_device_id, super_pod_id); None outside a super pod."""
    die = re.search(r"\bSDID\s*:\s*(\S+)", text)
    pod = re.search(r"\bSuper Pod ID\s*:\s*(\S+)", text)
    if die is None or pod is None:
        raise UnreadableOutput("npu-smi info -t spod-info", "no SDID and Super Pod ID in it")
    if not all(re.fullmatch(r"[0-9]{1,10}", found.group(1)) for found in (die, pod)):
        return None
    return (int(die.group(1)), pod.group(1)) if int(pod.group(1)) != _NO_SUPER_POD else None


def _fields(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            yield key.strip(), value.strip()


def _listed_devices(rows: list[list[str]], numbered: bool) -> tuple[ListedDevice, ...]:
    if len(rows) % 2:
        raise UnreadableOutput("npu-smi info", f"half a device: {' | '.join(rows[-1])[:_SHOWN_CHARACTERS]!r}")
    read = [_device(upper, lower) for upper, lower in zip(rows[::2], rows[1::2], strict=True)]
    chips_of: dict[int, int] = defaultdict(int)
    for npu, *_ in read:
        chips_of[npu] += 1
    dies = max(chips_of.values(), default=1)
    devices = []
    for npu, chip, stated, model, health, bus_id, hbm in read:
        # Without a column for it, the physical id counts the chips of all cards.
        device_id = stated if numbered and stated is not None else npu * dies + chip
        devices.append(
            ListedDevice(
                npu=npu, chip=chip, device_id=device_id, model=model, health=health, bus_id=bus_id,
                hbm_used_mb=hbm and hbm[0], hbm_total_mb=hbm and hbm[1],
            )
        )  # fmt: skip
    if len({device.device_id for device in devices}) != len(devices):
        raise UnreadableOutput("npu-smi info", "two devices have one physical id")
    return tuple(devices)


def _device(
    upper: list[str], lower: list[str]
) -> tuple[int, int, int | None, str, str, str, tuple[int, int] | None]:
    card = re.fullmatch(r"([0-9]{1,9})\s+(\S.*)", upper[0])
    chip = re.fullmatch(r"([0-9]{1,9})(?:\s+([0-9]{1,9}|NA|-))?", lower[0])
    if card is None or chip is None or len(upper) < 3 or len(lower) < 3 or not upper[1]:
        raise UnreadableOutput("npu-smi info", f"the row {' | '.join(upper)[:_SHOWN_CHARACTERS]!r}")
    pairs = _PAIR.findall(lower[2])
    # The last pair is HBM; a table with one pair shows only the DDR of boards without HBM.
    hbm = (int(pairs[-1][0]), int(pairs[-1][1])) if len(pairs) > 1 else None
    stated = int(chip.group(2)) if _NUMBER.fullmatch(chip.group(2) or "") else None
    return int(card.group(1)), int(chip.group(1)), stated, card.group(2), upper[1], lower[1], hbm


def _processes(rows: list[list[str]], devices: tuple[ListedDevice, ...]) -> tuple[DeviceProcess, ...]:
    ids = {(device.npu, device.chip): device.device_id for device in devices}
    processes = []
    for cells in rows:
        place = re.fullmatch(r"([0-9]{1,9})\s+([0-9]{1,9})", cells[0])
        key = (int(place.group(1)), int(place.group(2))) if place else None
        readable = len(cells) == 4 and _NUMBER.fullmatch(cells[1]) and _NUMBER.fullmatch(cells[3])
        if key is None or key not in ids or not readable:
            raise UnreadableOutput("npu-smi info", f"the row {' | '.join(cells)[:_SHOWN_CHARACTERS]!r}")
        processes.append(
            DeviceProcess(device_id=ids[key], pid=int(cells[1]), name=cells[2], memory_mb=int(cells[3]))
        )
    return tuple(processes)
