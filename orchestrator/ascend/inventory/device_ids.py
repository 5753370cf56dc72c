"""The two numbers of a device. Pure.

The physical id is that of /dev/davinci* and of the rank table. The logical id is CANN's number. A container with
/dev/davinci4 to 7 has the physical devices 4 to 7, but CANN numbers them from 0. Ray and ASCEND_RT_VISIBLE_DEVICES
use CANN's numbers.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from orchestrator.ascend.inventory.device_report import HostInventory
from orchestrator.ascend.inventory.npu_smi import ChipIds, shortened
from orchestrator.ascend.inventory.npu_smi_table import NpuSmiInfo

_NUMBER = re.compile(r"[ \t]*[0-9]{1,9}[ \t]*")


def with_both_ids(info: NpuSmiInfo, mapped: Mapping[tuple[int, int], ChipIds] | None) -> NpuSmiInfo:
    """The same host; every device has a logical id and its physical id.

    mapped: the result of `npu-smi info -m`, the best source; None when the tool failed. Without it, and
    without a column in the table, CANN is assumed to number the devices in the order of their physical ids.
    """
    known = mapped or {}
    physical = {
        device.device_id: (known.get((device.npu, device.chip)) or ChipIds(-1)).physical_id
        for device in info.devices
    }
    # All or nothing: a partial mapping could give two devices the same id.
    if None in physical.values() or len(set(physical.values())) < len(physical):
        physical = {device: device for device in physical}
    ids: dict[int, int] = {old: new for old, new in physical.items() if new is not None}
    devices = tuple(
        replace(device, device_id=ids[device.device_id], logical_id=logical_id)
        for device, logical_id in zip(info.devices, _logical_ids(info, known), strict=True)
    )
    processes = info.processes
    if processes is not None:
        processes = tuple(replace(item, device_id=ids[item.device_id]) for item in processes)
    return replace(info, devices=devices, processes=processes)


def _logical_ids(info: NpuSmiInfo, known: Mapping[tuple[int, int], ChipIds]) -> list[int]:
    """The logical id of each device, from the first source that gives every device one of its own."""
    ascending = sorted(device.device_id for device in info.devices)
    sources: tuple[list[int | None], ...] = (
        [known[d.npu, d.chip].logical_id if (d.npu, d.chip) in known else None for d in info.devices],
        [device.logical_id for device in info.devices],
    )
    for stated in sources:
        complete = [number for number in stated if number is not None]
        if len(set(complete)) == len(stated):
            return complete
    return [ascending.index(device.device_id) for device in info.devices]


def note_on_visible(variables: Mapping[str, str], host: HostInventory) -> str:
    """A sentence that ASCEND_RT_VISIBLE_DEVICES does not choose the devices of a rank table, and what does.

    Empty if the variable is not set, or if it names all devices of the host. It has CANN's numbers, as in 0,1.
    """
    value = variables.get("ASCEND_RT_VISIBLE_DEVICES")
    if value is None:
        return ""
    numbers = [int(part) if _NUMBER.fullmatch(part) else -1 for part in value.split(",")]
    known = {host.physical_id(number) for number in numbers} - {None}
    if len(known) == len(numbers) == len(host.devices):
        return ""
    remedy = "choose devices with --devices"
    if len(known) == len(numbers):
        ids = ",".join(str(device.device_id) for device in host.devices if device.device_id in known)
        remedy = f"for its devices alone, add --devices {ids} (physical ids)"
    return f"ASCEND_RT_VISIBLE_DEVICES is {shortened(value)}, and is not used here; {remedy}"
