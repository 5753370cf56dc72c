"""Ray's private names that the engine uses, as they are in the pinned version of Ray.

A failure here says what moved; nothing is started. `docs/ray_internals.md` says why each name is needed.
"""

import ast
import importlib
import inspect
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.engine.ray_train.no_notes import no_notes

ROOT = Path(__file__).resolve().parents[3]
DOOR = ROOT / "orchestrator" / "engine" / "ray_train"
V2 = "ray.train.v2._internal"

# Each private callable with the parameters that the engine relies on.
PARAMETERS = {
    f"{V2}.execution.controller.controller:TrainController.__init__": [
        "train_fn_ref", "train_run_context", "scaling_policy", "failure_policy", "callbacks", "validation_config",
    ],
    f"{V2}.execution.controller.controller:TrainController._run_control_loop_iteration": [],
    f"{V2}.execution.controller.controller:TrainController.run": [],
    f"{V2}.execution.controller.controller:TrainController.abort": [],
    f"{V2}.execution.controller.controller:TrainController.get_state": [],
    f"{V2}.execution.controller.controller:TrainController.get_result": [],
    f"{V2}.execution.controller.controller:TrainController.get_training_failed_error": [],
    f"{V2}.execution.worker_group.worker_group:WorkerGroup._start": [],
    f"{V2}.execution.worker_group.worker_group:WorkerGroup.has_started": [],
    f"{V2}.execution.worker_group.worker_group:WorkerGroup.shutdown": [],
    f"{V2}.execution.worker_group.worker_group:WorkerGroup.create": [
        "train_run_context", "worker_group_context", "callbacks",
    ],
    f"{V2}.execution.worker_group.worker_group:WorkerGroup._create_placement_group": [
        "scaling_config", "worker_group_context",
    ],
    f"{V2}.execution.worker_group.worker_group:WorkerGroup._create_workers": [
        "num_workers", "placement_group", "resources_per_worker", "placement_group_bundle_indices",
        "starting_world_rank", "world_size", "replica_group_size",
    ],
    f"{V2}.execution.worker_group.worker_group:WorkerGroup._assign_worker_ranks": [
        "workers", "starting_world_rank", "world_size", "replica_group_size",
    ],
    f"{V2}.execution.worker_group.worker_group:WorkerGroup._get_worker_runtime_env": ["custom_runtime_env"],
    f"{V2}.execution.worker_group.worker:Worker.__init__": [
        "actor", "metadata", "resources", "distributed_context", "log_file_path", "placement_group_bundle_index",
    ],
    f"{V2}.execution.worker_group.worker:Worker.execute_async": ["fn", "fn_args", "fn_kwargs"],
    f"{V2}.execution.worker_group.worker:RayTrainWorker.execute": ["fn", "fn_args", "fn_kwargs"],
    f"{V2}.execution.worker_group.worker:RayTrainWorker.get_metadata": [],
    f"{V2}.execution.context:DistributedContext.__init__": [
        "world_rank", "world_size", "local_rank", "local_world_size", "node_rank",
    ],
    f"{V2}.execution.callback:WorkerGroupCallback.before_worker_group_start": ["worker_group_context"],
    f"{V2}.execution.callback:WorkerGroupCallback.before_init_train_context": ["workers"],
    f"{V2}.execution.callback:WorkerGroupCallback.after_worker_group_start": ["worker_group"],
    f"{V2}.execution.callback:WorkerGroupCallback.after_worker_group_poll_status": ["worker_group_status"],
    f"{V2}.execution.callback:WorkerGroupCallback.before_worker_group_shutdown": ["worker_group"],
    f"{V2}.execution.failure_handling:FailurePolicy.make_decision": ["training_failed_error"],
    f"{V2}.execution.scaling_policy:ScalingPolicy.make_decision_for_non_running_worker_group": [],
    f"{V2}.execution.scaling_policy:ScalingPolicy.make_decision_for_running_worker_group": [
        "worker_group_state", "worker_group_status",
    ],
    f"{V2}.execution.scaling_policy:ScalingPolicy.after_controller_start": ["train_run_context"],
    f"{V2}.constants:get_env_vars_to_propagate": [],
    "ray.train.v2.api.data_parallel_trainer:DataParallelTrainer._initialize_and_run_controller": [
        "controller_init_kwargs",
    ],
    "ray.train.v2.api.data_parallel_trainer:DataParallelTrainer._create_default_callbacks": [],
    "ray._private.state:actors": ["actor_id", "job_id", "actor_state_name"],
    "ray._private.state:GlobalState.get_draining_nodes": [],
}  # fmt: skip


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_private_callable_takes_the_parameters_that_the_engine_gives(name: str) -> None:
    module, _, path = name.partition(":")
    found = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    parameters = [parameter for parameter in inspect.signature(found).parameters if parameter != "self"]
    assert parameters == PARAMETERS[name]


def test_the_cause_of_an_actors_death_names_memory_and_hosts() -> None:
    from ray.core.generated.common_pb2 import ActorDeathCause, ActorDiedErrorContext

    died = ActorDeathCause(
        actor_died_error_context=ActorDiedErrorContext(reason=ActorDiedErrorContext.NODE_DIED)
    )
    assert died.HasField("actor_died_error_context") and not died.HasField("oom_context")
    assert died.actor_died_error_context.reason == ActorDiedErrorContext.NODE_DIED


def test_the_poll_status_shows_errors_by_rank() -> None:
    from ray.train.v2._internal.execution.worker_group.poll import WorkerGroupPollStatus, WorkerStatus

    failed = WorkerStatus(running=False, error=ValueError("x"))
    status = WorkerGroupPollStatus({0: WorkerStatus(running=True), 1: failed})
    assert list(status.errors) == [1] and isinstance(status.errors[1], ValueError)


def test_ray_train_finds_its_marker_in_storage_that_keeps_nothing(tmp_path: Path) -> None:
    from ray.train.v2._internal.execution.storage import StorageContext

    StorageContext("no-notes", experiment_dir_name="run", storage_filesystem=no_notes())
    assert list(tmp_path.iterdir()) == []


def test_ray_trains_checkpoint_manager_writes_its_notes_to_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.train import CheckpointConfig
    from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import CheckpointManager
    from ray.train.v2._internal.execution.storage import StorageContext

    monkeypatch.chdir(tmp_path)
    context = StorageContext("no-notes", experiment_dir_name="run", storage_filesystem=no_notes())
    manager = CheckpointManager(CheckpointConfig(), context)
    manager._write_state_to_storage()
    assert list(tmp_path.iterdir()) == []


def test_a_run_gives_ray_train_the_filesystem_that_keeps_no_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.train import RunConfig, ScalingConfig

    from orchestrator.engine.ray_train import launch

    given: dict[str, RunConfig] = {}
    monkeypatch.setattr(
        launch.DataParallelTrainer, "__init__", lambda trainer, train_fn, **options: given.update(options)
    )
    settings = SimpleNamespace(mindspore=None)
    launch.ControlledTrainer(print, settings, ScalingConfig(), RunConfig(storage_path="/mount/runs"))  # type: ignore[arg-type]
    config = given["run_config"]
    assert config.storage_path == "no-notes" and config.storage_filesystem == no_notes()


def private_names(path: Path) -> set[str]:
    """What a file imports or reads of Ray's private modules."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return {n for n in names if n.startswith("ray.") and any(part.startswith("_") for part in n.split("."))}


def outside_the_door() -> list[Path]:
    folders = ("engine", "storage", "telemetry", "ascend")
    paths = [path for folder in folders for path in sorted((ROOT / "orchestrator" / folder).rglob("*.py"))]
    return [path for path in paths if DOOR not in path.parents]


@pytest.mark.parametrize("path", outside_the_door(), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_door_uses_rays_private_modules(path: Path) -> None:
    assert private_names(path) == set()


def test_no_file_of_the_door_replaces_a_name_of_ray() -> None:
    for path in DOOR.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            targets = node.targets if isinstance(node, ast.Assign) else []
            replaced = [
                ast.unparse(t)
                for t in targets
                if ast.unparse(t).startswith(("ray.", "services.", "parameter."))
            ]
            assert not replaced, f"{path.name} replaces {replaced}"
