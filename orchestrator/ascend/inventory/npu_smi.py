"""Parses the short outputs of `npu-smi`: lists, ids, health, usage.

`npu_smi_table.py` parses the large table of `npu-smi info`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.errors import OrchestratorError

_NUMBER = re.compile(r"[0-9]{1,9}")
_NO_SUPER_POD = 2**32 - 1
_SHOWN_CHARACTERS = 60


class UnreadableOutput(OrchestratorError):
    """The output of a tool cannot be parsed. Example: npu-smi was killed half way. tool: a command, or a file."""

    def __init__(self, tool: str, detail: str):
        super().__init__(tool, detail)
        self.tool, self.detail = tool, detail

    def __str__(self) -> str:
        if self.tool.startswith("/"):
            return f"{self.tool} cannot be read ({self.detail}); correct it on that host"
        return f"the output of `{self.tool}` cannot be read ({self.detail}); run it on that host"


def shortened(line: str) -> str:
    """A line of a tool, quoted, for a message."""
    text = " ".join(line.split())
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "...")


@dataclass(frozen=True, slots=True)
class ChipIds:
    """Ids of a chip: logical (CANN's number), and physical (/dev/davinci*) if the tool shows it."""

    logical_id: int
    physical_id: int | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """`npu-smi info -t health`: the status, the error codes behind it, their text."""

    status: str
    codes: tuple[str, ...]
    information: str


def parse_list(text: str) -> dict[int, int]:
    """Read `npu-smi info -l`: chips of each NPU id. Raises UnreadableOutput when they do not add up to the total."""
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
    if total is None:
        printed = next((line for line in text.splitlines() if line.strip()), "")
        raise UnreadableOutput("npu-smi info -l", f"no Total Count in it: {shortened(printed)}")
    if len(chips) != total:
        raise UnreadableOutput("npu-smi info -l", f"total count {total}, but {len(chips)} NPUs follow")
    return chips


def parse_mapping(text: str) -> dict[tuple[int, int], ChipIds]:
    """Read `npu-smi info -m`: ids of each (NPU id, chip id); rows of the Mcu are left out.

    Newer versions have a column Chip Phy-ID. Lines before the header are messages of the driver and are ignored.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    wanted = ("NPU ID", "Chip ID", "Chip Logic ID", "Chip Name")
    start = next((i for i, line in enumerate(lines) if all(name in line for name in wanted)), None)
    if start is None:
        raise UnreadableOutput(
            "npu-smi info -m", f"no header with Chip Logic ID in it: {shortened(' '.join(lines[:1]))}"
        )
    header = re.split(r"\s{2,}", lines[start])
    mapping: dict[tuple[int, int], ChipIds] = {}
    for line in lines[start + 1 :]:
        values = dict(zip(header, re.split(r"\s{2,}", line), strict=False))
        npu, chip, logic, name = (values.get(key, "") for key in wanted)
        if name.lower() == "mcu" or not line[0].isdigit():
            continue
        if not (all(_NUMBER.fullmatch(value) for value in (npu, chip, logic)) and name):
            raise UnreadableOutput("npu-smi info -m", f"the row {shortened(line)}")
        if (int(npu), int(chip)) in mapping or int(logic) in {ids.logical_id for ids in mapping.values()}:
            raise UnreadableOutput("npu-smi info -m", f"an earlier row has an id of {shortened(line)}")
        physical = values.get("Chip Phy-ID", "")
        mapping[int(npu), int(chip)] = ChipIds(
            int(logic), int(physical) if _NUMBER.fullmatch(physical) else None
        )
    if not mapping:
        raise UnreadableOutput("npu-smi info -m", "no chip follows its header")
    return mapping


def parse_health(text: str) -> Health:
    """Read `npu-smi info -t health -i N -c C`; NA means no error code."""
    fields = dict(_fields(text))
    status = fields.get("Health Status") or fields.get("Health")
    if not status:
        raise UnreadableOutput("npu-smi info -t health", "no Health Status in it")
    # Further codes may follow on lines of their own: each counts.
    stated = re.search(r"Error Code\s*:([^:]*)(?:\n[^\n:]*:|\Z)", text)
    codes = tuple(re.findall(r"\b(?:0x)?([0-9A-Fa-f]{8})\b", stated.group(1) if stated else ""))
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
    if _NO_SUPER_POD in (int(die.group(1)), int(pod.group(1))):
        return None
    return int(die.group(1)), pod.group(1)


def _fields(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            yield key.strip(), value.strip()
