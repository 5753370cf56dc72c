"""Finds and runs the tools of an Ascend host, and finds its files."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import OrchestratorError

ROOT_VARIABLE = "SDNET_ASCEND_ROOT"

_NPU_SMI = ("usr/local/bin/npu-smi", "usr/local/sbin/npu-smi", "usr/bin/npu-smi")
_HCCN_TOOL = ("usr/local/Ascend/driver/tools/hccn_tool", "usr/local/bin/hccn_tool", "usr/bin/hccn_tool")
_TOOL_TIMEOUT_S = 30.0


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
        text = path.read_text().strip() if path.is_file() else ""
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
            (str(path) for place in places if (path := self.root / place).is_file()), None
        )
        if found is None:
            raise ToolFailed(
                called, f"not on PATH and not at {', '.join(str(self.root / p) for p in places)}"
            )
        try:
            done = subprocess.run(
                [found, *arguments], capture_output=True, text=True, errors="replace",
                timeout=_TOOL_TIMEOUT_S, check=False, env={**os.environ, "LC_ALL": "C"},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ToolFailed(called, f"no end after {_TOOL_TIMEOUT_S:.0f} s; the driver may hang") from None
        except OSError as error:
            raise ToolFailed(called, str(error)) from None
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
            raise ToolFailed(called, f"exit code {done.returncode}, {last[:200]}")
        return done.stdout
