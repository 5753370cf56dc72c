"""A launch stops within a second while a group waits for its start."""

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.train.v2.api.config import ScalingConfig

from orchestrator.engine.control.ports import LaunchStopped
from orchestrator.engine.control.size import RankNeeds
from orchestrator.engine.ray_train import workers
from orchestrator.engine.ray_train.cluster import ControllerClock
from orchestrator.engine.ray_train.controller import GroupController
from orchestrator.engine.ray_train.policies import GroupSize
from orchestrator.engine.ray_train.workers import workers_class
from tests.unit.engine.bench import bench
from tests.unit.engine.fakes import FakeCluster, VirtualClock

NEEDS = RankNeeds({"CPU": 1.0}, per_host=1)


@pytest.fixture(autouse=True)
def no_host_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [])
    monkeypatch.setattr(workers, "draining_nodes", dict)


@pytest.fixture
def stopping() -> VirtualClock:
    """A clock that is stopped seven seconds from now."""
    clock = VirtualClock()
    clock.at(7.0, clock.stop)
    return clock


def test_a_group_that_waits_for_hosts_with_room_stops(stopping: VirtualClock) -> None:
    group: Any = object.__new__(workers_class(None, NEEDS, stopping))
    began = stopping.now()
    with pytest.raises(LaunchStopped):
        group._nodes_with_room(2)
    assert stopping.now() - began <= 8.0


def test_an_elastic_group_that_waits_for_its_fewest_ranks_stops(stopping: VirtualClock) -> None:
    config = ScalingConfig(num_workers=(2, 4), resources_per_worker={"CPU": 1.0})
    size = GroupSize(config, NEEDS, bench().control, FakeCluster(stopping), stopping)
    began = stopping.now()
    with pytest.raises(LaunchStopped):
        while True:
            size.make_decision_for_non_running_worker_group()
    assert stopping.now() - began <= 8.0


def test_a_real_wait_of_another_thread_ends_at_once() -> None:
    clock, ended = ControllerClock(), []

    def wait() -> None:
        with pytest.raises(LaunchStopped):
            clock.wait(60.0)
        ended.append(time.monotonic())

    thread = threading.Thread(target=wait)
    thread.start()
    clock.stop()
    thread.join(10.0)
    assert len(ended) == 1


def test_the_controller_answers_leave_while_ray_train_blocks_in_a_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered, may_end = threading.Event(), threading.Event()

    async def blocked(controller: GroupController) -> None:
        entered.set()
        may_end.wait(60.0)  # as `ray.get` blocks until the placement group is there

    ray_trains_own = GroupController.__mro__[1]
    monkeypatch.setattr(ray_trains_own, "_run_control_loop_iteration", blocked)
    steps = asyncio.new_event_loop()
    thread = threading.Thread(target=steps.run_forever)
    thread.start()
    controller: Any = object.__new__(GroupController)
    controller._control, controller._clock, controller._steps = bench().control, ControllerClock(), steps
    controller.get_state = lambda: SimpleNamespace(is_terminal=lambda: False)

    async def leave_while_it_starts() -> bool:
        starting = asyncio.create_task(controller._run_control_loop_iteration())
        while not entered.is_set():
            await asyncio.sleep(0)
        saving: bool = await asyncio.wait_for(controller.leave(), timeout=1.0)
        assert not starting.done()
        may_end.set()
        await starting
        return saving

    try:
        assert asyncio.run(leave_while_it_starts()) is False  # nothing is computed yet, so nothing to save
    finally:
        steps.call_soon_threadsafe(steps.stop)
        thread.join()
        steps.close()
