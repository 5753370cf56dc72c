"""How bad a device's fault is, and what to do about it.

Levels are MindCluster's. The codes are a selection from its public faultCode.json (ascend device
plug-in). As there, an unknown code counts as SeparateNPU.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class FaultLevel(IntEnum):
    """From harmless to worst."""

    NOT_HANDLE = 0
    SUB_HEALTH = 1
    RESTART_REQUEST = 2
    RESTART_BUSINESS = 3
    FREE_RESTART_NPU = 4
    RESTART_NPU = 5
    PRE_SEPARATE_NPU = 6
    SEPARATE_NPU = 7

    @property
    def action(self) -> str:
        return _ACTIONS[self]

    @property
    def usable(self) -> bool:
        """True when a new job may be placed on the device."""
        return self <= FaultLevel.RESTART_BUSINESS


_ACTIONS = {
    FaultLevel.NOT_HANDLE: "nothing to do",
    FaultLevel.SUB_HEALTH: "watch it: the device works, slower or less safely",
    FaultLevel.RESTART_REQUEST: "run the job again",
    FaultLevel.RESTART_BUSINESS: "run the job again",
    FaultLevel.FREE_RESTART_NPU: "reset the chip once it is idle: npu-smi set -t reset",
    FaultLevel.RESTART_NPU: "stop what runs on it and reset the chip: npu-smi set -t reset",
    FaultLevel.PRE_SEPARATE_NPU: "leave the device out; no new job may use it",
    FaultLevel.SEPARATE_NPU: "leave the device out and have it repaired",
}

# Faults of a device's own network port. MindCluster's device plug-in does not count them as faults of the chip.
_OF_NETWORK = ("81078603", "81078607")

_CODES = {
    FaultLevel.NOT_HANDLE: ("80E21007", "80E38003", "80F78006", "80C98006", "80CB8006"),
    FaultLevel.RESTART_REQUEST: ("80C98008", "80C98002", "80C98003", "80C98009", "80CB8002"),
    FaultLevel.RESTART_BUSINESS: ("80E01801", "8C204E00", "A8028802", "A4302003", "A4302004", "A4302005"),
    FaultLevel.FREE_RESTART_NPU: ("8C0E4E00", "8C104E00", "8C0C4E00", "8C044E00", "8C064E00", "8C084E00"),
    FaultLevel.RESTART_NPU: ("8C03A000", "8C1FA006", "40F84E00", "80E24E00", "80E21E01"),
    FaultLevel.PRE_SEPARATE_NPU: _OF_NETWORK,
    FaultLevel.SEPARATE_NPU: ("80E3A201", "80E18402", "80E0020B", "817F8002", "816F8002"),
}
_LEVELS = {code: level for level, codes in _CODES.items() for code in codes}
_NAMES = {
    "81078603": "network port down",
    "81078607": "network port down",
    "40F84E00": "card dropped off the bus",
    "80E01801": "uncorrectable HBM error",
}


@dataclass(frozen=True, slots=True)
class DeviceFault:
    """One error code of a device, with its level; the name is empty when it is not known."""

    code: str
    name: str
    level: FaultLevel

    @property
    def of_network(self) -> bool:
        """True for a fault of the device's own network port, which a group on one host does not use."""
        return self.code in _OF_NETWORK

    def __str__(self) -> str:
        return f"{self.code} {self.name}".rstrip()


def faults_of(codes: Iterable[str]) -> tuple[DeviceFault, ...]:
    """The faults behind error codes (eight hexadecimal digits), the worst first."""
    faults = [
        DeviceFault(
            code.upper(), _NAMES.get(code.upper(), ""), _LEVELS.get(code.upper(), FaultLevel.SEPARATE_NPU)
        )
        for code in codes
    ]
    return tuple(sorted(faults, key=lambda fault: (-fault.level, fault.code)))
