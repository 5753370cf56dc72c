"""What a rank is doing right now, for whoever watches the group from outside.

One pulse a process. The training thread writes it, the controller reads it through the
actor's main thread, so a rank that hangs in a collective still tells where it stands.
"""

import os
import time
from dataclasses import dataclass
from typing import Literal

Phase = Literal["starting", "compiling", "stepping", "evaluating", "saving", "finished"]


@dataclass(frozen=True, slots=True)
class Pulse:
    """phase: what the rank is at. step: global steps done. since_s: age of the last change, in seconds.

    work_s: seconds of the rank's own work on a slice, when it knows (`Trainer.work_s`).
    """

    pid: int
    phase: Phase
    step: int
    since_s: float
    work_s: float | None


_phase: Phase = "starting"
_step = 0
_work_s: float | None = None
_changed = time.monotonic()


def beat(phase: Phase, step: int, work_s: float | None = None) -> None:
    """Say that this rank is now in `phase`, with `step` global steps behind it; None leaves `work_s`."""
    global _phase, _step, _work_s, _changed
    _phase, _step, _changed = phase, step, time.monotonic()
    _work_s = _work_s if work_s is None else work_s


def read_pulse() -> Pulse:
    """This process's pulse, with its age by this host's own clock."""
    return Pulse(os.getpid(), _phase, _step, time.monotonic() - _changed, _work_s)
