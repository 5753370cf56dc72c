"""Gives back what a group holds when its start fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.train.v2._internal.execution.callback import WorkerGroupCallback


class FailedStart(WorkerGroupCallback):
    """Ends a group whose ranks are there but cannot begin. Example: one died in the rendezvous.

    Ray Train 2.60 cleans up only until the workers know their ranks. What fails after that would
    leave processes and their places behind, and the next generation would wait for them in vain.
    Must come before all other callbacks, to hear of the group before any of them can fail.
    """

    def __init__(self) -> None:
        self._group: Any = None

    @contextmanager
    def on_worker_group_start(self) -> Iterator[None]:
        self._group = None
        try:
            yield
        except Exception:
            if self._group is not None:
                self._group.shutdown()
            raise

    def after_worker_group_start(self, worker_group: Any) -> None:
        self._group = worker_group
