"""Ray Train's controller, with groups that take standbys, and with a way to end them that loses no step."""

import asyncio

from ray.train.v2._internal.execution.controller.controller import TrainController

from orchestrator.training.drain import DrainWatch
from orchestrator.training.standby import WarmWorkerGroup

_LOOK_EVERY_S = 0.1


class GroupController(TrainController):
    """The actor that leads one launch's groups, one generation after another."""

    worker_group_cls = WarmWorkerGroup

    async def leave(self) -> None:
        """Let the ranks save and end; returns when they have, at once when there are none to tell."""
        told = [one.tell_to_leave() for one in self._callbacks if isinstance(one, DrainWatch)]
        while any(told) and not self.get_state().is_terminal():
            await asyncio.sleep(_LOOK_EVERY_S)
