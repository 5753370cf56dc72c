"""The two numbers of a device: physical, as /dev/davinci* and the rank table; logical, as CANN counts.

A container that was given /dev/davinci4 to 7 has physical devices 4 to 7, but CANN counts what it
sees from 0. Ray counts as CANN does, and ASCEND_RT_VISIBLE_DEVICES takes CANN's numbers. Pure.
"""

from collections.abc import Mapping
from dataclasses import replace

from orchestrator.ascend.inventory.npu_smi import ChipIds
from orchestrator.ascend.inventory.npu_smi_table import NpuSmiInfo


def with_both_ids(info: NpuSmiInfo, mapped: Mapping[tuple[int, int], ChipIds] | None) -> NpuSmiInfo:
    """The same host; every device has a logical id and its physical id.

    mapped: what `npu-smi info -m` says, which knows best; None when it cannot be asked. Without it, and
    without a column in the table, CANN is taken to count the devices by their physical ids.
    """
    known = mapped or {}
    physical = {
        device.device_id: (known.get((device.npu, device.chip)) or ChipIds(-1)).physical_id
        for device in info.devices
    }
    # Both or none: half of a mapping could give two devices one id.
    if None in physical.values() or len(set(physical.values())) < len(physical):
        physical = {device: device for device in physical}
    ids: dict[int, int] = {old: new for old, new in physical.items() if new is not None}
    devices = tuple(
        replace(device, device_id=ids[device.device_id], logical_id=_logical_id(info, known, place))
        for place, device in enumerate(info.devices)
    )
    processes = info.processes
    if processes is not None:
        processes = tuple(replace(item, device_id=ids[item.device_id]) for item in processes)
    return replace(info, devices=devices, processes=processes)


def _logical_id(info: NpuSmiInfo, known: Mapping[tuple[int, int], ChipIds], place: int) -> int:
    device = info.devices[place]
    if all((other.npu, other.chip) in known for other in info.devices):
        return known[device.npu, device.chip].logical_id
    if device.logical_id is not None:
        return device.logical_id
    return sorted(other.device_id for other in info.devices).index(device.device_id)
