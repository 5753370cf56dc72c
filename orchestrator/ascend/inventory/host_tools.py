"""Finds and runs the tools of an Ascend host, and finds its files."""

import contextlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import OrchestratorError

ROOT_VARIABLE = "SDNET_ASCEND_ROOT"

_NPU_SMI = ("usr/local/bin/npu-smi", "usr/local/sbin/npu-smi", "usr/bin/npu-smi")
_HCCN_TOOL = ("usr/local/Ascend/driver/tools/hccn_tool", "usr/local/bin/hccn_tool", "usr/bin/hccn_tool")
_TOOL_TIMEOUT_S = 30.0
_KILLED_ENDS_WITHIN_S = 1.0
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class ToolFailed(OrchestratorError):
    """A tool of the host could not be run. Example: npu-smi is not mounted in the container."""

    def __init__(self, tool: str, detail: str):
        super().__init__(tool, detail)
        self.tool, self.detail = tool, detail

    def __str__(self) -> str:
        return f"`{self.tool}` failed: {self.detail}"


@dataclass(frozen=True, slots=True)
class AscendHostTools:
    """Tools and files of a host under `root`, which is / except where tests put fakes.

    A container with the driver in another place, or a test, sets SDNET_ASCEND_ROOT for the processes of
    that host. If the root is /, tools on PATH are preferred.
    """

    root: Path = Path("/")

    @classmethod
    def of_this_host(cls) -> "AscendHostTools":
        return cls(Path(os.environ.get(ROOT_VARIABLE) or "/"))

    @property
    def hccn_conf(self) -> Path:
        return self.root / "etc/hccn.conf"

    @property
    def driver_version(self) -> Path:
        return self.root / "usr/local/Ascend/driver/version.info"

    @property
    def cann_versions(self) -> tuple[Path, ...]:
        """Files that say which CANN is installed, the newer layout first."""
        toolkit = self.root / "usr/local/Ascend/ascend-toolkit/latest"
        return (
            toolkit / "version.cfg",
            toolkit / "version.info",
            self.root / "usr/local/Ascend/version.info",
        )

    def device_nodes(self) -> tuple[int, ...]:
        """Physical ids of the devices in /dev, ascending."""
        names = (path.name.removeprefix("davinci") for path in (self.root / "dev").glob("davinci[0-9]*"))
        return tuple(sorted(int(name) for name in names if name.isdecimal()))

    def numa_node_of(self, bus_id: str) -> int | None:
        """NUMA node of a PCI device; None when the kernel does not know it."""
        path = self.root / "sys/bus/pci/devices" / bus_id.lower() / "numa_node"
        text = text_if_readable(path).strip()
        return int(text) if text.isdecimal() else None

    def npu_smi(self, *arguments: str) -> str:
        return self._run("npu-smi", _NPU_SMI, arguments)

    def hccn_tool(self, *arguments: str) -> str:
        return self._run("hccn_tool", _HCCN_TOOL, arguments)

    def _run(self, name: str, places: tuple[str, ...], arguments: tuple[str, ...]) -> str:
        """What the tool printed; ToolFailed when it is missing, ends with an error, or does not end."""
        called = " ".join((name, *arguments))
        on_path = shutil.which(name) if self.root == Path("/") else None
        found = on_path or next(
            (str(path) for place in places if os.access(path := self.root / place, os.F_OK)), None
        )
        if found is None:
            raise ToolFailed(
                called, f"not on PATH and not at {', '.join(str(self.root / p) for p in places)}"
            )
        code, printed, complaint = _run_to_its_end([found, *arguments], called)
        if code:
            last = (complaint.strip() or printed.strip() or "no message").splitlines()[-1]
            raise ToolFailed(called, f"exit code {code}, {last[:200]}")
        return printed


def text_if_readable(path: Path) -> str:
    """The text of a file of the host; empty when there is none, or this user may not read it."""
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except OSError:
        return ""


def _run_to_its_end(command: list[str], called: str) -> tuple[int, str, str]:
    """(exit code, output, error output) of a tool, without colours; ToolFailed when it does not start or end."""
    try:
        tool = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except OSError as error:
        raise ToolFailed(called, str(error)) from None
    try:
        printed, complaint = tool.communicate(timeout=_TOOL_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        tool.kill()
        # A process that hangs inside the driver does not react to SIGKILL, so its end is not awaited.
        with contextlib.suppress(subprocess.TimeoutExpired):
            tool.wait(_KILLED_ENDS_WITHIN_S)
        raise ToolFailed(called, f"no end after {_TOOL_TIMEOUT_S:.0f} s; the driver may hang") from None
    return tool.returncode, _COLOUR.sub("", printed), _COLOUR.sub("", complaint)
