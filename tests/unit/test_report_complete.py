"""The summary waits until this host can read the event of the last epoch, and says so when it never can."""

import pytest

from orchestrator.report.complete import wait_for_last_epoch
from orchestrator.telemetry.events import Epoch
from orchestrator.telemetry.record import EventWriter
from tests.unit.engine.fakes import MemoryStorage

LAST = Epoch(epoch=1, step=20, loss=0.5, losses={}, lr=0.004, steps=20, seconds=3.0)


def test_the_wait_ends_as_soon_as_the_last_epoch_is_visible(caplog: pytest.LogCaptureFixture) -> None:
    storage, waited = MemoryStorage(), []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:  # the mount's cache expires
            with EventWriter(storage) as writer:
                writer.record(LAST)

    wait_for_last_epoch(storage, step=20, clock=lambda: sum(waited), sleep=sleep)
    assert len(waited) == 3 and not caplog.records


def test_an_epoch_that_never_becomes_visible_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    storage = MemoryStorage()
    waited: list[float] = []
    with EventWriter(storage) as writer:
        writer.record(LAST)
    wait_for_last_epoch(storage, step=40, clock=lambda: sum(waited), sleep=waited.append)
    assert 75 <= sum(waited) <= 77
    assert caplog.messages == ["the events of the last epoch are not visible here; the summary lacks them"]
