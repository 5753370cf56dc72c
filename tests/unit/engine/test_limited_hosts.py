"""Placement of a group's ranks when the number of ranks on a host is limited."""

from typing import Any

import pytest
import ray

from orchestrator.engine.control.size import RankNeeds
from orchestrator.engine.ray_train import workers
from orchestrator.engine.ray_train.workers import ControlledWorkers
from tests.unit.engine.fakes import VirtualClock


@pytest.fixture
def draining(monkeypatch: pytest.MonkeyPatch) -> dict[str, float | None]:
    """Three hosts with room for two ranks each; the nodes in this dictionary are drained."""
    nodes = [
        {"NodeManagerAddress": f"10.0.0.{n}", "NodeID": f"n{n}", "Alive": True, "Resources": {"CPU": 2.0}}
        for n in (1, 2, 3)
    ]
    drained: dict[str, float | None] = {}
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(workers, "draining_nodes", lambda: drained)
    return drained


def group(per_host: int, clock: VirtualClock) -> Any:
    made: Any = object.__new__(ControlledWorkers)
    made._needs, made._clock = RankNeeds({"CPU": 1.0}, per_host), clock
    return made


def test_a_host_with_room_for_two_gets_one_rank_when_that_is_the_limit(
    draining: dict[str, float | None],
) -> None:
    assert group(1, VirtualClock())._nodes_with_room(2) == ["n1", "n2"]
    assert group(2, VirtualClock())._nodes_with_room(3) == ["n1", "n1", "n2"]


def test_no_rank_goes_to_a_host_that_is_drained(draining: dict[str, float | None]) -> None:
    draining["n2"] = 1.0e9
    assert group(1, VirtualClock())._nodes_with_room(2) == ["n1", "n3"]


def test_a_group_waits_for_a_host_with_room(draining: dict[str, float | None]) -> None:
    draining["n2"] = draining["n3"] = None
    clock = VirtualClock()
    clock.at(5.0, draining.clear)
    began = clock.now()
    assert group(1, clock)._nodes_with_room(2) == ["n1", "n2"]
    assert clock.now() - began == pytest.approx(5.0, abs=1.0)
