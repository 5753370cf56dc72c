"""A saver over storage in memory, and a state to save."""

from collections.abc import Callable

import numpy as np

from orchestrator.engine.rank.saver import Saver, SaveTimes
from orchestrator.engine.state_format import NpzFormat, State
from tests.unit.engine.fakes import MemoryStorage, Recorder

FORMAT = NpzFormat()


def saver_of(
    storage: MemoryStorage,
    *,
    has_earlier: bool = False,
    every_s: float | None = 0.0,
    record: Recorder | None = None,
) -> Saver:
    return Saver(
        storage,
        FORMAT,
        keep=2,
        best=None,
        times=SaveTimes(every_s, 0, 0.0),
        record=record or Recorder(),
        on_saved=lambda name: None,
        has_earlier=has_earlier,
    )


def weights(step: int) -> Callable[[], State]:
    return lambda: {"weight": np.full(2, step)}
