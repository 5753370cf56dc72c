"""Waits until this host can read every event of a run, because the summary and the report are made from them."""

import contextlib
import logging
import time
from collections.abc import Callable

from orchestrator.storage import Storage, StorageError
from orchestrator.storage.retry import LISTED_WITHIN_S
from orchestrator.telemetry.events import Epoch
from orchestrator.telemetry.record import EventReader

logger = logging.getLogger(__name__)


def wait_for_last_epoch(
    storage: Storage,
    step: int,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until the events contain the epoch that ended at `step`, the last of the run.

    A rank on another host wrote this event, and a mount may show it late. After `LISTED_WITHIN_S` a warning says
    what the summary lacks. Storage errors end the wait, because the launcher retries when it writes the summary.
    """
    reader, deadline = EventReader(storage), clock() + LISTED_WITHIN_S
    with contextlib.suppress(StorageError):
        while not any(isinstance(r.event, Epoch) and r.event.step == step for r in reader.read()):
            if clock() > deadline:
                logger.warning("the events of the last epoch are not visible here; the summary lacks them")
                return
            sleep(1.0)
