"""`MindSporeTrainer`: runs a MindSpore training function on a Ray cluster and recovers from failures."""

import functools
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.v2.api import config as v2
from ray.train.v2.api.exceptions import TrainingFailedError

from orchestrator.engine.arguments import (
    RecoveryConfig,
    arguments_of,
    check_scaling,
    check_sendable,
    check_type,
    run_directory,
)
from orchestrator.engine.checkpoints import Encoded, checkpoint_names, read_fields
from orchestrator.engine.config import MindSporeConfig
from orchestrator.engine.control.group import ControlSettings
from orchestrator.engine.control.hang import longest_wait_s
from orchestrator.engine.control.size import RankNeeds
from orchestrator.engine.environment import process_environment
from orchestrator.engine.function import call_by_name, compile_key, module_of, plain, sources_of, versions
from orchestrator.engine.host.left_over import RUN_VARIABLE
from orchestrator.engine.rank.run import RankSettings, run_rank
from orchestrator.engine.ray_train.classify import classify
from orchestrator.engine.ray_train.controller import ControllerSettings
from orchestrator.engine.ray_train.launch import ControlledTrainer
from orchestrator.engine.state_format import NpzFormat, StateFormat
from orchestrator.errors import InputError, OrchestratorError
from orchestrator.storage import DirectoryStorage, Lease, Ownership, RunLost, StorageError, owned
from orchestrator.storage.host_cache import HostCache
from orchestrator.storage.retry import outlasting
from orchestrator.telemetry.record import merge_events
from orchestrator.telemetry.state import read_state, write_state

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a run ended. step, metrics: of the last checkpoint. value: what the training function returned on rank 0."""

    path: Path
    checkpoint: str | None
    step: int
    metrics: Mapping[str, float]
    value: Any = None


class TrainingGaveUp(OrchestratorError):
    """The group failed too often, or in a way that would happen again. Example: the loss became NaN."""

    def __init__(self, cause: str, reason: str):
        super().__init__(cause, reason)
        self.cause, self.reason = cause, reason

    def __str__(self) -> str:
        return f"training stopped: {self.cause} ({self.reason}); see logs/ and events.jsonl of the run"


class MindSporeTrainer:
    """Runs `train_loop_per_worker` data-parallel in MindSpore ranks; it has the shape of Ray's `TorchTrainer`.

    Args:
        train_loop_per_worker: the training function, with no argument or with the configuration. It calls
            `get_session()`; see docs/your_own_training.md.
        train_loop_config: passed to the function.
        mindspore_config: device, threads and rendezvous of the ranks.
        scaling_config: number of ranks, or `(fewest, most)` for a group that may shrink and grow.
        run_config: `name` and `storage_path`; the run is the directory `<storage_path>/<name>`.
        recovery: see `RecoveryConfig`.
        state_format: how a state becomes files; by default NumPy archives.
        host_cache: where each host keeps logs and graphs while the run's storage is a network file system.

    Raises InputError for wrong arguments.
    """

    def __init__(
        self,
        train_loop_per_worker: Callable[..., object],
        *,
        train_loop_config: Mapping[str, object] | None = None,
        mindspore_config: MindSporeConfig | None = None,
        scaling_config: ScalingConfig | None = None,
        run_config: RunConfig | None = None,
        recovery: RecoveryConfig | None = None,
        state_format: StateFormat | None = None,
        host_cache: HostCache | None = None,
    ):
        self._function, self._config = train_loop_per_worker, train_loop_config
        self._arguments = arguments_of(train_loop_per_worker, train_loop_config)
        self._recovery = recovery or RecoveryConfig()
        check_type("recovery", self._recovery, RecoveryConfig)
        self._scaling = check_scaling(scaling_config or v2.ScalingConfig(num_workers=1))
        self._format = state_format or NpzFormat()
        self._host_cache = host_cache or HostCache()
        self._root = run_directory(run_config)
        mindspore_config = mindspore_config or MindSporeConfig()
        check_type("mindspore_config", mindspore_config, MindSporeConfig)
        self._mindspore = self._complete(mindspore_config)

    def fit(self, lease: Lease | None = None) -> Result:
        """Run to the end; resumes from the newest checkpoint if this run was started before.

        Call `ray.init()` first. On an interrupt it saves before it ends. lease: of a caller that already owns the
        run; without one, `fit` owns the run until it returns. Raises TrainingGaveUp, RunIsOwned when another process
        works on the run, RunLost when another process took it over, StorageError, or InputError for a training
        function that cannot run in a rank, and for the run of a launch.
        """
        if RUN_VARIABLE in os.environ:
            raise InputError(
                "fit() was called inside a rank: the script calls it when it is imported; "
                'call it below `if __name__ == "__main__":`'
            )
        call = self._call()  # refuses a function that cannot be sent, before anything is written
        if lease is not None:
            lease.check()  # a run whose storage is away must not be made again below an empty mount point
        elif (self._root / "job.yaml").exists():
            raise InputError(
                f"{self._root} is the run of a job of `sdnet-orchestrate launch`; give run_config another name"
            )
        self._make_directory()
        storage = DirectoryStorage(self._root)
        if lease is None:
            with owned(storage) as owning:
                state = read_state(storage, owning.lease.number)
                write_state(storage, replace(state, lease=owning.lease.number, ended=None))
                try:
                    return self._fit(call, storage, owning.lease)
                finally:
                    _merge_events(storage, owning)
        return self._fit(call, storage, lease)

    def _make_directory(self) -> None:
        try:
            for folder in ("logs", "plan", "checkpoints"):
                (self._root / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"the run's directory {self._root} cannot be made ({error.strerror}: {error.filename}); "
                "correct run_config, or its permissions"
            ) from error

    def _fit(self, call: Callable[[], object], storage: DirectoryStorage, lease: Lease) -> Result:
        environment = process_environment(self._mindspore.threads, str(self._root))
        trainer = ControlledTrainer(
            functools.partial(run_rank, call, self._rank_settings(storage, lease)),
            self._controller_settings(storage, lease),
            self._ray_scaling(),
            v2.RunConfig(name=self._root.name, worker_runtime_env={"env_vars": environment}),
        )
        try:
            value = trainer.fit().return_value
        except TrainingFailedError as error:
            raise TrainingGaveUp(classify(error).detail, trainer.ended_because()) from error
        except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
            cause = str(error).splitlines()[0].rstrip(".")
            raise TrainingGaveUp(f"the controller died: {cause}", "launch again to resume") from error
        # Training has ended, so storage that is away now only delays the result.
        return outlasting(storage, lambda: self._result(storage, value), self._recovery.storage_timeout_s)

    def _complete(self, config: MindSporeConfig) -> MindSporeConfig:
        """A copy of the configuration with the values of this run. A copy, as other runs may share the original."""
        return replace(
            config,
            directory=self._root,
            run=str(self._root),
            preload=config.preload or (module_of(self._function),),
            failure_budget_s=max(config.failure_budget_s, longest_wait_s(self._recovery.step_timeout_s)),
        )

    def _call(self) -> Callable[[], object]:
        """The training function bound to its configuration, in the form that is sent to the ranks."""
        call = functools.partial(self._function, *self._arguments)
        if plain(self._function).__module__ == "__main__":
            call = functools.partial(
                call_by_name, module_of(self._function), self._function.__qualname__, self._arguments
            )
        check_sendable(call)
        return call

    def _rank_settings(self, storage: DirectoryStorage, lease: Lease) -> RankSettings:
        recovery, computes_on_cpu = self._recovery, not self._mindspore.start_options.on_device
        cache = recovery.compile_cache and computes_on_cpu  # untested on an NPU
        return RankSettings(
            storage=storage,
            lease=lease,
            state_format=self._format,
            every_s=recovery.checkpoint_every_s,
            keep=recovery.keep,
            best=recovery.best,
            logs=self._root / "logs",
            compiled=self._root / "compiled" if cache else None,
            compile_key=recovery.compile_key or self._compile_key() if cache else "",
            cache=self._host_cache,
            storage_timeout_s=recovery.storage_timeout_s,
        )

    def _compile_key(self) -> str:
        return compile_key(sources_of(self._function), self._config, versions())

    def _controller_settings(self, storage: DirectoryStorage, lease: Lease) -> ControllerSettings:
        recovery = self._recovery
        return ControllerSettings(
            storage=storage,
            lease=lease,
            run=str(self._root),
            control=ControlSettings(
                max_failures=recovery.max_failures,
                step_timeout_s=recovery.step_timeout_s,
                storage_timeout_s=recovery.storage_timeout_s,
            ),
            needs=self.rank_needs(),
            mindspore=self._mindspore,
            # A standby has no NPU, and Ray cannot assign one to a running worker.
            standbys=recovery.standbys and self._mindspore.device == "cpu",
        )

    def rank_needs(self) -> RankNeeds:
        """The resources of each rank: those of `scaling_config`; by default its threads on CPU, or one NPU."""
        limit = self._recovery.workers_per_host
        given: dict[str, float] | None = self._scaling.resources_per_worker  # type: ignore[assignment]  # or Ray Tune's
        if given:
            return RankNeeds(given, limit)
        own = {"CPU": float(self._mindspore.threads)}
        if self._mindspore.device == "ascend":
            own = {"CPU": 1.0, "NPU": 1.0}
        return RankNeeds(own, limit)

    def _ray_scaling(self) -> v2.ScalingConfig:
        return v2.ScalingConfig(
            num_workers=self._scaling.num_workers,
            resources_per_worker=dict(self.rank_needs().resources),
            placement_strategy=self._scaling.placement_strategy,
        )

    def _result(self, storage: DirectoryStorage, value: object) -> Result:
        names = checkpoint_names(storage)
        fields = read_fields(storage, names[-1]) if names else {}
        return Result(
            path=self._root,
            checkpoint=names[-1] if names else None,
            step=int(fields.get("step", 0)),
            metrics=Encoded({}, fields).metrics,
            value=value,
        )


def _merge_events(storage: DirectoryStorage, owning: Ownership) -> None:
    """Write `events.jsonl` if we still own the run. If that fails, the segments still have the same events."""
    try:
        owning.check()
        merge_events(storage)
    except (StorageError, RunLost) as error:
        logger.warning("events.jsonl is not written: %s", error)
