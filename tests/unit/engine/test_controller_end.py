"""How the controller ends: what it leaves in the run's state, and that it answers until the last write."""

import asyncio
import threading
from typing import Any

import pytest
from ray.train import ControllerError

from orchestrator.engine.control.failures import Failure, FailureKind
from orchestrator.engine.control.policy import Decision
from orchestrator.engine.control.ports import LaunchStopped
from orchestrator.engine.ray_train.controller import GroupController
from orchestrator.telemetry.state import read_state
from tests.unit.engine.bench import Bench, bench


class SlowWriter:
    """An event writer whose storage hangs until `returns` is set."""

    def __init__(self) -> None:
        self.entered, self.returns = threading.Event(), threading.Event()

    def close(self) -> None:
        self.entered.set()
        assert self.returns.wait(60.0)


def controller_of(made: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> Any:
    """A controller whose loop has just ended, with this error or well. Ray is not started."""

    async def ended(controller: GroupController) -> None:
        return

    ray_trains_own = GroupController.__mro__[1]
    monkeypatch.setattr(ray_trains_own, "run", ended)
    monkeypatch.setattr(ray_trains_own, "get_training_failed_error", lambda controller: error)
    controller: Any = object.__new__(GroupController)
    controller._control, controller._writer = made.control, SlowWriter()
    return controller


@pytest.mark.parametrize(
    ("error", "left"), [(None, set()), (ControllerError(LaunchStopped()), {"0", "1"})], ids=["well", "failed"]
)
def test_ranks_are_struck_off_the_state_only_when_all_of_them_returned(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, left: set[str]
) -> None:
    made = bench()
    made.start("h0", "h1")
    made.control.ended()
    controller = controller_of(made, monkeypatch, error)
    controller._writer.returns.set()
    asyncio.run(controller.run())
    assert set(read_state(made.storage).ranks) == left


def test_the_controller_answers_while_its_last_events_wait_for_storage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    controller = controller_of(bench(), monkeypatch, None)

    async def end_and_ask() -> None:
        ending = asyncio.create_task(controller.run())
        while not controller._writer.entered.is_set():
            await asyncio.sleep(0)
        assert not ending.done()  # and this coroutine runs
        controller._writer.returns.set()
        await ending

    asyncio.run(end_and_ask())


def test_an_aborted_group_is_asked_no_more_and_keeps_its_ranks_in_the_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = bench()
    made.start("h0", "h1")
    controller = controller_of(made, monkeypatch, None)
    controller._writer.returns.set()
    ray_trains_own: Any = GroupController.__mro__[1]
    asked = []

    async def abort(controller: GroupController) -> None:
        asked.append("abort")

    monkeypatch.setattr(ray_trains_own, "abort", abort)
    asyncio.run(controller.abort())
    assert made.control.failed(Failure(FailureKind.CONTROLLER, None, "not active")) is Decision.STOP
    asyncio.run(controller._run_control_loop_iteration())  # without Ray's loop: there is none here
    asyncio.run(controller.run())
    assert asked == ["abort"] and "failure_detected" not in made.record.names()
    assert set(read_state(made.storage).ranks) == {"0", "1"}
