"""Puts a fake Ascend host on disk; SDNET_ASCEND_ROOT points the product at it."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_TOOLS = {"npu-smi": "usr/local/bin/npu-smi", "hccn_tool": "usr/local/Ascend/driver/tools/hccn_tool"}
_MODELS = {"910a": "910A", "910b": "910B4", "a3": "Ascend910"}


def describe(
    number: int, *, soc: str = "910b", devices: Iterable[int] = range(8), pod: str | None = None
) -> dict[str, Any]:
    """A healthy host; its device d has the address 192.168.<number>.<d+1>. Tests change what they need."""
    dies = 2 if soc == "a3" else 1
    return {
        "soc": soc,
        "version": "23.0.3",
        "reachable": [],
        "devices": [
            {
                "id": device, "npu": device // dies, "chip": device % dies, "model": _MODELS[soc],
                "health": "OK", "codes": [], "bus_id": f"0000:{0xC0 + device:02X}:00.0",
                "hbm": [3000 + device, 32768], "ip": f"192.168.{number}.{device + 1}",
                "link": "UP", "net_health": "Success", "processes": [], "numa": device // 4,
                **({"sdid": 16 * number + device, "pod": pod} if pod is not None else {}),
            }
            for device in devices
        ],
    }  # fmt: skip


def install(
    root: Path, description: dict[str, Any], *, tools: Iterable[str] = _TOOLS, conf: str = ""
) -> Path:
    """Write tools, /dev, /sys and (when given) /etc/hccn.conf of the host under `root`; returns it."""
    change(root, description)
    for tool in tools:
        path = root / _TOOLS[tool]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"#!{sys.executable} -S\nimport sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            f"import tools\ntools.main({tool!r}, {str(root)!r}, sys.argv[1:])\n"
        )
        path.chmod(0o755)
    for device in description["devices"]:
        _write(root / f"dev/davinci{device['id']}", "")
        _write(root / f"sys/bus/pci/devices/{device['bus_id'].lower()}/numa_node", f"{device['numa']}\n")
    _write(root / "dev/davinci_manager", "")
    if conf:
        _write(root / "etc/hccn.conf", conf)
    return root


def change(root: Path, description: dict[str, Any]) -> None:
    """Change what the tools of an installed host report from now on."""
    root.mkdir(parents=True, exist_ok=True)
    temporary = root / "description.json.new"
    temporary.write_text(json.dumps(description))
    temporary.replace(root / "description.json")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
