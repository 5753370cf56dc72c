"""Starts our controller through Ray Train's data-parallel trainer, and ends it cleanly."""

import contextlib
import logging
from collections.abc import Callable
from typing import Any

import ray
from ray.train import Result, RunConfig, ScalingConfig
from ray.train.v2._internal.callbacks import AcceleratorSetupCallback, BackendSetupCallback
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from orchestrator.engine.ray_train.controller import ControllerSettings, GroupController
from orchestrator.engine.ray_train.no_notes import no_notes

logger = logging.getLogger(__name__)

# How long an interrupted group may take to save. With the second it takes to end, it is less than the half minute
# that job managers leave between SIGTERM and SIGKILL.
_SAVE_WITHIN_S = 15.0
_ABORT_WITHIN_S = 1.0
_ANSWER_WITHIN_S = 10.0
# Our controller does the work of the first two. Ray Data is not used, and the last one's actor would cost CPU time:
# Ray removes the placement group when the controller ends.
_REPLACED = (AcceleratorSetupCallback, BackendSetupCallback, DatasetsCallback, PlacementGroupCleanerCallback)

_CONTROLLER_ENVIRONMENT = {
    # How long a rank's failure may wait for the controller to look.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # `control/drain.py` looks for drained hosts, without an actor of its own in every generation.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}


class ControlledTrainer(DataParallelTrainer):
    """Ray Train's trainer with our controller. It stores nothing of its own."""

    def __init__(
        self,
        train_fn: Callable[[], Any],
        settings: ControllerSettings,
        scaling_config: ScalingConfig,
        run_config: RunConfig,
    ):
        run_config.storage_path, run_config.storage_filesystem = "no-notes", no_notes()
        super().__init__(
            train_fn, backend_config=settings.mindspore, scaling_config=scaling_config, run_config=run_config
        )
        self._settings = settings
        self._controller: Any = None

    def fit(self) -> Result:
        """Run to the end. Interrupted, the group saves and ends before KeyboardInterrupt is raised again."""
        try:
            return super().fit()
        except KeyboardInterrupt:
            if self._controller is not None:
                self._end_group()
            raise

    def ended_because(self) -> str:
        """Why the controller gave up, from its own memory: storage may be away."""
        reason = None
        with contextlib.suppress(ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            reason = ray.get(self._controller.ended_because.remote(), timeout=_ANSWER_WITHIN_S)
        return reason or "the controller failed"

    def _create_default_callbacks(self) -> list[Any]:
        return [one for one in super()._create_default_callbacks() if not isinstance(one, _REPLACED)]

    def _initialize_and_run_controller(self, **kwargs: Any) -> Result:
        """As Ray Train does it, with our class of controller; its policies are ours, so Ray Train's are dropped."""
        for name in ("scaling_policy", "failure_policy"):
            kwargs.pop(name)
        here = {ray._raylet.RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}
        environment = {"env_vars": {**get_env_vars_to_propagate(), **_CONTROLLER_ENVIRONMENT}}
        actor = ray.remote(num_cpus=0, label_selector=here, runtime_env=environment)(GroupController)
        self._controller = actor.remote(settings=self._settings, scaling_config=self.scaling_config, **kwargs)
        ray.get(self._controller.run.remote())
        return ray.get(self._controller.get_result.remote())

    def _end_group(self) -> None:
        logger.warning("interrupted: saving and ending the group; interrupt again to leave at once")
        try:
            ray.get(self._controller.leave.remote(), timeout=_SAVE_WITHIN_S)
        except ray.exceptions.GetTimeoutError:
            logger.warning("the group did not save within %.0f s: it resumes from before", _SAVE_WITHIN_S)
        except ray.exceptions.RayActorError as error:
            logger.warning("the controller is gone: %s", error)
            return
        try:
            ray.get(self._controller.abort.remote(), timeout=_ABORT_WITHIN_S)
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            ray.kill(self._controller)  # it ended already, or it waits for something that does not return
