"""Ray Train's data-parallel trainer as we run it: with our controller, our policies, and a clean end."""

import logging
from typing import Any

import ray
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.failure_handling import FailurePolicy
from ray.train.v2._internal.execution.scaling_policy import ScalingPolicy
from ray.train.v2.api import data_parallel_trainer
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from orchestrator.training.controller import GroupController
from orchestrator.training.failed_start import FailedStart

logger = logging.getLogger(__name__)

# How long an interrupted group may take to save, and then to end before its controller is killed:
# together less than the half minute that job managers leave between SIGTERM and SIGKILL.
_SAVE_WITHIN_S = 15.0
_ABORT_WITHIN_S = 10.0


class GroupTrainer(DataParallelTrainer):
    """Ray Train's data-parallel trainer, with policies of our own; without a scaling policy, Ray Train's.

    They are made in the launcher and travel to the controller with everything else.
    """

    def __init__(
        self, *args: Any, failure_policy: FailurePolicy, scaling_policy: ScalingPolicy | None, **kwargs: Any
    ):
        super().__init__(*args, **kwargs)
        self._policies: dict[str, Any] = {"failure_policy": failure_policy}
        if scaling_policy is not None:
            self._policies["scaling_policy"] = scaling_policy

    def _initialize_and_run_controller(self, **kwargs: Any) -> Any:
        # Ray Train takes its controller's class from its module, and from nowhere else.
        theirs, data_parallel_trainer.TrainController = data_parallel_trainer.TrainController, GroupController
        try:
            return super()._initialize_and_run_controller(**{**kwargs, **self._policies})
        finally:
            data_parallel_trainer.TrainController = theirs

    def _create_default_callbacks(self) -> list[Any]:
        # Without Ray Data there is nothing to hand out, and its actor would cost each start seconds. The
        # cleaner's actor would cost each step; Ray removes the placement group when this launcher ends,
        # as it does soon after its controller.
        spared = (DatasetsCallback, PlacementGroupCleanerCallback)
        made = super()._create_default_callbacks()
        return [FailedStart(), *(one for one in made if not isinstance(one, spared))]

    def _register_sigint_handler(self, controller: Any) -> None:
        # Python's own handler stays: Ctrl-C is a KeyboardInterrupt here as everywhere.
        self._controller = controller

    def fit(self) -> Any:
        """Run to the end. Interrupted, the group saves and ends before KeyboardInterrupt goes on."""
        try:
            return super().fit()
        except KeyboardInterrupt:
            logger.warning("interrupted: saving and ending the group; Ctrl-C again leaves at once")
            self._end_group()
            raise

    def _end_group(self) -> None:
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
            ray.kill(self._controller)  # gone already, as it should be, or too slow
