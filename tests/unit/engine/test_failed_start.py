"""A failed start leaves nothing behind: the next generation needs its resources."""

import threading
from typing import Any

import pytest

from orchestrator.engine.ray_train.workers import ControlledWorkers


class Rendezvous(Exception):
    """The error of the start."""


@pytest.mark.parametrize("has_started", [True, False])
def test_workers_of_a_failed_start_are_ended_once_they_exist_and_the_error_is_kept(
    monkeypatch: pytest.MonkeyPatch, has_started: bool
) -> None:
    def fails(group: ControlledWorkers) -> None:
        raise Rendezvous("rank 1 did not join")

    ended: list[object] = []
    ray_trains_own = ControlledWorkers.__mro__[1]
    monkeypatch.setattr(ray_trains_own, "_start", fails)
    monkeypatch.setattr(ray_trains_own, "has_started", lambda group: has_started)
    monkeypatch.setattr(ray_trains_own, "shutdown", lambda group: ended.append(group))
    group: Any = object.__new__(ControlledWorkers)
    group._has_hosts = threading.Event()
    with pytest.raises(Rendezvous, match="rank 1 did not join"):
        group._start()
    assert ended == ([group] if has_started else [])
