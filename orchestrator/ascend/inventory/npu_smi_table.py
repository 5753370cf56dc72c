"""Parses the table of `npu-smi info`: devices, and the processes that use them.

Cells are found by the words in the header of their frame, because versions of the tool differ in
width and number of columns: 910A (`Chip Device`), 910B (`Chip`), A3 (`Chip Phy-ID`, two dies a
card), 26.x (a fifth column of processes), 950 (`NPU ID` in a separate cell). Lines outside frames are
messages of the driver. A table that is cut off or garbled raises UnreadableOutput: if a process were
overlooked, a rank would be placed on a busy device.
"""

import re
from collections import Counter
from dataclasses import dataclass, field, replace

from orchestrator.ascend.inventory.host_tools import ToolFailed, why_no_access
from orchestrator.ascend.inventory.npu_smi import UnreadableOutput, shortened

_PAIR = re.compile(r"([0-9]{1,9}|NA|-)\s*/\s*([0-9]{1,9}|NA|-)")
_NUMBER = re.compile(r"[0-9]{1,9}")
_NO_PROCESS = re.compile(r"no (running )?process", re.IGNORECASE)
_NOT_SHOWN = frozenset({"na", "n/a", "-", "not support", "not supported"})
_TOOL = "npu-smi info"
_NOT_STATED = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedDevice:
    """A device (on A3: a die) as `npu-smi info` lists it; memory in MB, None when not shown.

    logical_id: only where the table has a column `Device`.
    """

    npu: int
    chip: int
    device_id: int
    logical_id: int | None = None
    model: str
    health: str
    bus_id: str
    hbm_used_mb: int | None
    hbm_total_mb: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceProcess:
    """A process that uses a device. The name may be empty, and the memory unknown.

    container_pid: its id inside the container it runs in, where the tool shows that.
    """

    device_id: int
    pid: int
    name: str
    memory_mb: int | None
    container_pid: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NpuSmiInfo:
    """`npu-smi info`: its version, every device, and the processes on them (None: it lists no processes)."""

    version: str | None
    devices: tuple[ListedDevice, ...]
    processes: tuple[DeviceProcess, ...] | None


@dataclass(slots=True)
class _Frame:
    """A table between frames: its header, and its rows as (line, cells)."""

    header: list[str]
    second_header: list[str] = field(default_factory=list)
    rows: list[tuple[str, list[str]]] = field(default_factory=list)

    @property
    def lists_processes(self) -> bool:
        return any(cell.lower() == "process id" for cell in self.header)


def parse_info(text: str) -> NpuSmiInfo:
    """Read `npu-smi info`; raises UnreadableOutput when it is incomplete, ToolFailed when it has no access."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    drawn = [line for line in lines if line.startswith(("+", "|"))]
    # A message of the driver without a line break at its end. The row after it may name a busy device.
    torn = next((line for line in lines if line.endswith("|") and not line.startswith("|")), None)
    if torn is not None:
        raise UnreadableOutput(_TOOL, f"the row {shortened(torn)}")
    frames = _frames(drawn)
    of_devices = [frame for frame in frames if not frame.lists_processes]
    if not of_devices:
        # Some versions end with code 0 then.
        if refused := why_no_access(text):
            raise ToolFailed(_TOOL, refused)
        printed = f"; it printed {shortened(lines[0])}" if lines else ""
        raise UnreadableOutput(_TOOL, f"no table of devices in it{printed}")
    if not drawn[-1].startswith("+"):
        raise UnreadableOutput(_TOOL, f"it ends before its last frame, with {shortened(drawn[-1])}")
    devices = _devices(of_devices)
    of_processes = [frame for frame in frames if frame.lists_processes]
    version = next(filter(None, (re.match(r"\|\s*npu-smi\s+([^\s|]+)", line) for line in drawn)), None)
    return NpuSmiInfo(
        version=version.group(1) if version else None,
        devices=devices,
        processes=_processes(of_processes, devices) if of_processes else None,
    )


def _frames(drawn: list[str]) -> list[_Frame]:
    frames: list[_Frame] = []
    for line in drawn:
        if line.startswith("+"):
            continue
        cells = [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]
        if cells[0].startswith("NPU") and len(cells) > 1:
            frames.append(_Frame(cells))
        elif frames and not frames[-1].rows and any(cell.startswith("Bus-Id") for cell in cells):
            frames[-1].second_header = cells
        elif frames:
            frames[-1].rows.append((line, cells))
    return frames


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of the table of devices, which has two rows for each device, `upper` and `lower`."""

    cells: int
    name: int
    health: int
    bus_id: int
    memory: int | None
    chip: str

    @classmethod
    def of(cls, frame: _Frame) -> "_Columns":
        upper, lower = frame.header, frame.second_header
        health, bus_id = _index(upper, "Health"), _index(lower, "Bus-Id")
        name = 0 if re.search(r"\bName\b", upper[0]) else _index(upper, "Name")
        if len(upper) != len(lower) or None in (name, health, bus_id):
            raise UnreadableOutput(_TOOL, f"the header {shortened(' | '.join(upper))}")
        memory = next((i for i, cell in enumerate(lower) if "HBM" in cell), None)
        return cls(len(upper), name or 0, health or 0, bus_id or 0, memory, lower[0])


def _index(header: list[str], label: str) -> int | None:
    return next((i for i, cell in enumerate(header) if cell.startswith(label)), None)


def _devices(frames: list[_Frame]) -> tuple[ListedDevice, ...]:
    read: list[ListedDevice] = []
    for frame in frames:
        columns = _Columns.of(frame)
        if len(frame.rows) % 2:
            raise UnreadableOutput(_TOOL, f"half a device: {shortened(frame.rows[-1][0])}")
        pairs = zip(frame.rows[::2], frame.rows[1::2], strict=True)
        read.extend(_device(upper, lower, columns) for upper, lower in pairs)
    dies = max(Counter(device.npu for device in read).values(), default=1)
    devices = tuple(
        # Without a column for it, the physical id follows from the card and the chip.
        replace(device, device_id=device.npu * dies + device.chip)
        if device.device_id == _NOT_STATED
        else device
        for device in read
    )
    if len({device.device_id for device in devices}) != len(devices):
        raise UnreadableOutput(_TOOL, "two devices have one physical id")
    return devices


def _device(upper: tuple[str, list[str]], lower: tuple[str, list[str]], columns: _Columns) -> ListedDevice:
    for line, cells in (upper, lower):
        if len(cells) != columns.cells:
            raise UnreadableOutput(_TOOL, f"the row {shortened(line)}")
    card, model = _card(upper[1], columns.name)
    chip = _chip(lower[1][0], columns.chip)
    health = upper[1][columns.health]
    if card is None or chip is None or not model or not health:
        raise UnreadableOutput(_TOOL, f"the row {shortened(upper[0] if chip else lower[0])}")
    number, stated, logical = chip
    pairs = [] if columns.memory is None else _PAIR.findall(lower[1][columns.memory])
    # Of several pairs in a cell the last one is HBM; the others are DDR.
    used, total = map(_number, pairs[-1]) if pairs else (None, None)
    return ListedDevice(
        npu=card, chip=number, device_id=_NOT_STATED if stated is None else stated, logical_id=logical,
        model=model, health=health, bus_id=lower[1][columns.bus_id], hbm_used_mb=used, hbm_total_mb=total,
    )  # fmt: skip


def _card(cells: list[str], name: int) -> tuple[int | None, str]:
    """NPU id and model, which share the first cell in most generations."""
    found = re.fullmatch(r"([0-9]{1,9})(?:\s+(\S.*))?", cells[0])
    if found is None:
        return None, ""
    return int(found.group(1)), (found.group(2) or "") if name == 0 else cells[name]


def _chip(cell: str, header: str) -> tuple[int, int | None, int | None] | None:
    """Chip number, physical id and logical id, as the header of the cell names them."""
    if not header:
        return (0, None, None) if not cell else None
    found = re.fullmatch(r"([0-9]{1,9})(?:\s+([0-9]{1,9}|NA|-))?", cell)
    if found is None:
        return None
    second = int(found.group(2)) if _NUMBER.fullmatch(found.group(2) or "") else None
    physical = second if "Phy-ID" in header else None
    logical = second if "Device" in header else None
    return int(found.group(1)), physical, logical


def _processes(frames: list[_Frame], devices: tuple[ListedDevice, ...]) -> tuple[DeviceProcess, ...]:
    ids = {(device.npu, device.chip): device.device_id for device in devices}
    processes = []
    for frame in frames:
        for line, cells in frame.rows:
            if _shows_no_process(cells):
                continue
            place, process = _process(line, cells, frame.header)
            # A process on a device that this table does not list does not make a listed device busy.
            if place in ids:
                processes.append(replace(process, device_id=ids[place]))
    return tuple(processes)


def _shows_no_process(cells: list[str]) -> bool:
    """Whether a row is no process: it says so, or it has neither a process id nor a name nor memory.

    Some versions print NA in such a row. A row with a name or memory is a process, also without an id.
    """
    if any(_NO_PROCESS.match(cell) for cell in cells[:2]):
        return True
    process_id, *others = [cell.lower() for cell in cells[1:]] or [""]
    return process_id in _NOT_SHOWN and all(not cell or cell in _NOT_SHOWN for cell in others)


def _process(line: str, cells: list[str], header: list[str]) -> tuple[tuple[int, int], DeviceProcess]:
    """((npu, chip), process without its device) of a row."""
    labels = [label.lower() for label in header]
    name = labels.index("process name") if "process name" in labels else None
    surplus = len(cells) - len(header)
    if name is None or surplus < 0:
        raise UnreadableOutput(_TOOL, f"the row {shortened(line)}")
    # The name of a process may contain the character that separates the cells.
    cells = [*cells[:name], " | ".join(cells[name : name + surplus + 1]), *cells[name + surplus + 1 :]]
    values = dict(zip(labels, cells, strict=True))
    place = re.fullmatch(r"([0-9]{1,9})(?:\s+([0-9]{1,9}))?", cells[0])
    pid = _number(values["process id"])
    if place is None or pid is None:
        raise UnreadableOutput(_TOOL, f"the row {shortened(line)}")
    memory = next((value for label, value in values.items() if label.startswith("process memory")), "")
    process = DeviceProcess(
        device_id=_NOT_STATED,
        pid=pid,
        name=values["process name"],
        memory_mb=_number(memory),
        container_pid=_number(values.get("process id in container", "")),
    )
    return (int(place.group(1)), int(place.group(2) or 0)), process


def _number(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) else None
