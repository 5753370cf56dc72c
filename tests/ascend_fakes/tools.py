"""What the fake `npu-smi` and `hccn_tool` of a host print, rendered from its description (JSON).

Imports the standard library only: the tools run under a bare `python -S`, once per call.
"""

import json
import sys
from pathlib import Path

# Widths of the three columns of `npu-smi info`, by chip: versions differ in them.
WIDTHS = {"910a": (19, 17, 54), "910b": (27, 15, 52), "a3": (27, 15, 52)}
# What the driver writes around the tables of some hosts.
NOISE = "DrvMngGetConsoleLogLevel failed. (g_conLogLevel=3)\n"
SECOND_HEADER = {"910a": "Chip    Device", "910b": "Chip", "a3": "Chip  Phy-ID"}


def info(host: dict) -> str:
    """`npu-smi info` of the host."""
    widths = WIDTHS[host["soc"]]
    frame = "+" + "+".join("-" * width for width in widths) + "+"
    rule = frame.replace("-", "=")
    lines = [
        frame,
        f"| npu-smi {host['version']}{' ' * 17}Version: {host['version']}".ljust(len(frame) - 1) + "|",
        frame,
        row(widths, "NPU   Name", "Health", "Power(W)    Temp(C)           Hugepages-Usage(page)"),
        row(widths, SECOND_HEADER[host["soc"]], "Bus-Id", "AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)"),
        rule,
    ]
    for device in host["devices"]:
        lines += device_rows(host["soc"], widths, device)
        lines.append(rule if device["chip"] == 0 and host["soc"] != "a3" else frame)
    lines += process_rows(host["devices"], names_containers=host["version"].startswith("26"))
    return noisy(host, "\n".join(lines) + "\n")


def noisy(host: dict, text: str) -> str:
    return NOISE + text + NOISE if host.get("noise") else text


def device_rows(soc: str, widths: tuple, device: dict) -> list:
    power = "-" if device["chip"] else "88.2"
    chip = str(device["chip"]) if soc == "910b" else f"{device['chip']}     {device['id']}"
    used, total = device["hbm"]
    card = f"{device['npu']}     {device['model']}"
    return [
        row(widths, card, device["health"], f"{power}        30                0    / 0"),
        row(widths, chip, device["bus_id"], f"0           0    / 0          {used:<5}/ {total}"),
    ]


def process_rows(devices: list, names_containers: bool) -> list:
    """names_containers: the fifth column that 26.x has."""
    widths = (25, 15, 26, 25, 25)[: 5 if names_containers else 4]
    frame = "+" + "+".join("-" * width for width in widths) + "+"
    rule = frame.replace("-", "=")
    titles = ("NPU     Chip", "Process id", "Process name", "Process memory(MB)", "Process id in container")
    lines = [row(widths, *titles[: len(widths)]), rule]
    for npu in sorted({device["npu"] for device in devices}):
        mine = [device for device in devices if device["npu"] == npu]
        held = [(device["chip"], process) for device in mine for process in device["processes"]]
        for chip, (pid, name, memory) in held:
            cells = (f"{npu}       {chip}", str(pid), name, str(memory), "NA")
            lines.append(row(widths, *cells[: len(widths)]))
        if not held:
            lines.append("| " + f"No running processes found in NPU {npu}".ljust(len(frame) - 3) + "|")
        lines.append(rule)
    return lines


def row(widths: tuple, *cells: str) -> str:
    return "|" + "|".join(f" {cell}".ljust(width) for width, cell in zip(widths, cells, strict=True)) + "|"


def listing(host: dict) -> str:
    """`npu-smi info -l` of the host."""
    npus = sorted({device["npu"] for device in host["devices"]})
    text = f"\tTotal Count                    : {len(npus)}\n"
    for npu in npus:
        chips = sum(device["npu"] == npu for device in host["devices"])
        text += f"\n\tNPU ID                         : {npu}\n\tChip Count                     : {chips}\n"
    return text


def mapping(host: dict) -> str:
    """`npu-smi info -m` of the host, with the Mcu rows that real hosts show; A3 names physical ids too."""
    columns = "\t{0:<31}{1:<31}{2:<31}" + ("{3:<31}{4}\n" if host["soc"] == "a3" else "{4}\n")
    text = columns.format("NPU ID", "Chip ID", "Chip Logic ID", "Chip Phy-ID", "Chip Name")
    for logic, device in enumerate(host["devices"]):
        name = f"Ascend {device['model']}"
        text += columns.format(device["npu"], device["chip"], logic, device["id"], name)
    for npu in sorted({device["npu"] for device in host["devices"]}):
        text += columns.format(npu, 9, "-", "-", "Mcu")
    return noisy(host, text)


def of_chip(host: dict, what: str, device: dict) -> str:
    """`npu-smi info -t <what> -i N -c C` of one chip."""
    fields = {
        "health": {
            "Health Status": device["health"],
            "Error Code": " ".join(device["codes"]) or "NA",
            "Error Information": "fault of the test" if device["codes"] else "NA",
        },
        "spod-info": {"SDID": device.get("sdid", "NA"), "Super Pod ID": device.get("pod", "NA")},
        "usages": {"HBM Capacity(MB)": device["hbm"][1], "HBM Usage Rate(%)": 3, "Chip ID": device["chip"]},
    }[what]
    return "".join(f"\t{name:<31}: {value}\n" for name, value in fields.items())


def npu_smi(host: dict, arguments: list) -> str:
    if arguments == ["info"]:
        return host.get("garbled_info") or info(host)
    if arguments == ["info", "-l"]:
        return listing(host)
    if arguments == ["info", "-m"]:
        return mapping(host)
    what, npu = arguments[2], int(arguments[4])
    chip = int(arguments[6]) if len(arguments) > 6 else None
    chosen = [d for d in host["devices"] if d["npu"] == npu and chip in (None, d["chip"])]
    return "".join(of_chip(host, what, device) for device in chosen)


def hccn_tool(host: dict, arguments: list) -> str:
    device = next(device for device in host["devices"] if device["id"] == int(arguments[1]))
    if "-ip" in arguments:
        address = device.get("ipv6" if "-inet6" in arguments else "ip")
        if not address:
            raise SystemExit("hccn_tool: get ip failed")
        return f"ipaddr:{address}\nnetmask:255.255.255.0\n"
    if "-link" in arguments:
        return f"link status: {device['link']}\n"
    if "-ping" in arguments:
        reached = arguments[-1] in host["reachable"]
        return f"3 packets transmitted, {3 * reached} received, {100.0 * (not reached):.2f}% packet loss\n"
    return f"net health status: {device['net_health']}\n"


def main(tool: str, root: str, arguments: list) -> None:
    host = json.loads((Path(root) / "description.json").read_text())
    sys.stdout.write({"npu-smi": npu_smi, "hccn_tool": hccn_tool}[tool](host, arguments))
