"""Starts our controller through Ray Train's data-parallel trainer, and ends it cleanly."""

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator

import ray
from ray.actor import ActorHandle
from ray.train.v2._internal.callbacks import AcceleratorSetupCallback, BackendSetupCallback
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.callback import RayTrainCallback
from ray.train.v2.api.config import RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.api.result import Result

from orchestrator.engine.ray_train.controller import ControllerSettings, GroupController
from orchestrator.engine.ray_train.no_notes import no_notes
from orchestrator.engine.ray_train.ray_core import NODE_ID_LABEL

logger = logging.getLogger(__name__)

# How long an interrupted group may take to save. Job managers often send SIGKILL half a minute after SIGTERM; by then
# the group must have saved and ended.
_SAVE_WITHIN_S = 15.0
_ABORT_WITHIN_S = 1.0
_ANSWER_WITHIN_S = 10.0
# Our controller does the work of the first two. The third serves Ray Data, which we do not use. The last one starts an
# actor, which costs CPU time; Ray removes the placement group without it when the controller ends.
_REPLACED = (AcceleratorSetupCallback, BackendSetupCallback, DatasetsCallback, PlacementGroupCleanerCallback)

_CONTROLLER_ENVIRONMENT = {
    # How soon Ray Train notices that a rank failed.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # Ranks inherit it. Ray Train's `print` writes each line twice when standard output is not the original one.
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # `control/drain.py` looks for drained hosts, without an extra actor in every generation.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}


class ControlledTrainer(DataParallelTrainer):
    """Ray Train's trainer with our controller. It writes no files."""

    def __init__(
        self,
        train_fn: Callable[[], object],
        settings: ControllerSettings,
        scaling_config: ScalingConfig,
        run_config: RunConfig,
    ):
        run_config.storage_path, run_config.storage_filesystem = "no-notes", no_notes()
        super().__init__(
            train_fn,
            backend_config=settings.mindspore,
            scaling_config=scaling_config,
            run_config=run_config,  # type: ignore[arg-type]  # Ray names version 1's class
        )
        self._settings = settings
        self._controller: ActorHandle[GroupController] | None = None

    def fit(self) -> Result:
        """Run to the end. Interrupted, the group saves and ends before the exception of the signal is raised again."""
        try:
            with exiting_on_sigterm():
                result = super().fit()
            assert isinstance(result, Result)  # Ray names version 1's class
            return result
        except (KeyboardInterrupt, SystemExit):
            if self._controller is not None:
                _end_group(self._controller)
            raise

    def ended_because(self) -> str:
        """Why the controller gave up. It answers from memory, because storage may be unavailable."""
        reason: object = None
        if self._controller is not None:
            with contextlib.suppress(ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
                reason = ray.get(self._controller.ended_because.remote(), timeout=_ANSWER_WITHIN_S)
        return str(reason or "the controller failed")

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        return [one for one in super()._create_default_callbacks() if not isinstance(one, _REPLACED)]

    def _initialize_and_run_controller(self, **kwargs: object) -> Result:
        """As Ray Train does it, with our class of controller; its policies are ours, so Ray Train's are dropped."""
        for name in ("scaling_policy", "failure_policy"):
            kwargs.pop(name)
        here = {NODE_ID_LABEL: ray.get_runtime_context().get_node_id()}
        environment = {"env_vars": {**get_env_vars_to_propagate(), **_CONTROLLER_ENVIRONMENT}}
        actor = ray.remote(num_cpus=0, label_selector=here, runtime_env=environment)(GroupController)
        controller = actor.remote(settings=self._settings, scaling_config=self.scaling_config, **kwargs)
        assert isinstance(controller, ActorHandle)
        self._controller = controller
        ray.get(controller.run.remote())
        result: Result = ray.get(controller.get_result.remote())
        return result


@contextlib.contextmanager
def exiting_on_sigterm() -> Iterator[None]:
    """Let SIGTERM raise SystemExit(143) in the block, unless the program has a handler of its own.

    `ray.init` installs handlers of SIGTERM. The one in C++ prints a stack trace and aborts before the group has saved.
    Only the main thread has handlers; in another thread this does nothing.
    """
    handler = signal.getsignal(signal.SIGTERM)
    of_ray = getattr(handler, "__module__", "").startswith("ray.")
    if threading.current_thread() is not threading.main_thread() or not (of_ray or handler is signal.SIG_DFL):
        yield
        return
    received: list[int] = []

    def leave(signum: int, frame: object) -> None:
        received.append(signum)
        raise SystemExit(128 + signum)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except SystemExit:
        if received:
            raise SystemExit(128 + signal.SIGTERM) from None  # Ray's calls replace the code by 1
        raise
    finally:
        signal.signal(signal.SIGTERM, handler)


def _end_group(controller: ActorHandle[GroupController]) -> None:
    logger.warning("interrupted: saving and ending the group; interrupt again to leave at once")
    try:
        ray.get(controller.leave.remote(), timeout=_SAVE_WITHIN_S)
    except ray.exceptions.GetTimeoutError:
        logger.warning("the group did not save within %.0f s: it resumes from before", _SAVE_WITHIN_S)
    except ray.exceptions.RayActorError as error:
        logger.warning("the controller is gone: %s", error)
        return
    try:
        ray.get(controller.abort.remote(), timeout=_ABORT_WITHIN_S)
    except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
        ray.kill(controller)  # it ended already, or it waits for something that does not return
