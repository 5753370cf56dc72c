"""Ray's private names that the engine uses, as they are in the pinned version of Ray.

A failure here says which name moved; nothing is started. `docs/ray_internals.md` says why each name is needed.
"""

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
)
from ray.train.v2._internal.execution.failure_handling import FailureDecision
from ray.train.v2._internal.execution.scaling_policy import (
    NoopDecision,
    ResizeDecision,
    ScalingDecision,
    ScalingPolicy,
)
from ray.train.v2._internal.execution.worker_group import WorkerGroupState
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from orchestrator.engine.ray_train.launch import _REPLACED
from tests.unit.ray_names import found, private_names_of_ray

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
    f"{V2}.execution.scaling_policy:ScalingPolicy.before_controller_shutdown": [],
    f"{V2}.execution.scaling_policy:ScalingPolicy.before_controller_abort": [],
    f"{V2}.execution.scaling_policy:ScalingPolicy._get_num_workers_for_resource_request": [],
    f"{V2}.constants:get_env_vars_to_propagate": [],
    "ray.train.v2.api.data_parallel_trainer:DataParallelTrainer._initialize_and_run_controller": [
        "controller_init_kwargs",
    ],
    "ray.train.v2.api.data_parallel_trainer:DataParallelTrainer._create_default_callbacks": [],
    "ray.train.v2.api.data_parallel_trainer:DataParallelTrainer.fit": [],
    "ray._private.state:actors": ["actor_id", "job_id", "actor_state_name"],
    "ray._private.state:GlobalState.get_draining_nodes": [],
    "ray._private.services:canonicalize_bootstrap_address_or_die": ["addr", "temp_dir"],
    "ray._common.utils:get_ray_address_file": ["temp_dir"],
    "ray._private.services:resolve_ip_for_localhost": ["host"],
    "ray._private.utils:get_entrypoint_name": [],
    f"{V2}.exceptions:WorkerGroupStartupTimeoutError.__init__": ["num_workers"],
    f"{V2}.exceptions:WorkerHealthCheckFailedError.__init__": ["message", "failure"],
    f"{V2}.execution.scaling_policy:ResizeDecision.__init__": [
        "num_workers", "resources_per_worker",
    ],
    f"{V2}.execution.scaling_policy:NoopDecision.__init__": [],
}  # fmt: skip


# Names that only annotations use.
TYPES = (
    f"{V2}.execution.callback:RayTrainCallback",
    f"{V2}.execution.callback:TrainContextCallback",
    f"{V2}.execution.callback:WorkerCallback",
    f"{V2}.execution.worker_group.placement_group_handle:PlacementGroupHandle",
    f"{V2}.util:ObjectRefWrapper",
)


@pytest.mark.parametrize("name", TYPES)
def test_a_type_of_ray_train_is_where_the_engine_imports_it(name: str) -> None:
    assert isinstance(found(name), type)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_private_callable_takes_the_parameters_that_the_engine_gives(name: str) -> None:
    parameters = [parameter for parameter in inspect.signature(found(name)).parameters if parameter != "self"]
    assert parameters == PARAMETERS[name]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        (f"{V2}.execution.worker_group.worker:ActorMetadata", {"node_id", "node_ip", "pid"}),
        (f"{V2}.execution.worker_group.worker:Worker", {"actor", "metadata", "distributed_context"}),
        (f"{V2}.execution.worker_group.state:WorkerGroupContext", {"num_workers", "label_selector"}),
        (f"{V2}.execution.context:TrainRunContext", {"run_config"}),
        ("ray.train.v2.api.config:RunConfig", {"worker_runtime_env"}),
    ],
)
def test_a_private_record_has_the_fields_that_the_engine_reads(name: str, fields: set[str]) -> None:
    assert fields <= set(found(name).__dataclass_fields__)


def test_the_decisions_after_a_failure_are_to_retry_or_to_raise() -> None:
    assert {"RETRY", "RAISE"} <= set(FailureDecision.__members__)


def test_both_decisions_about_the_size_are_what_ray_train_expects() -> None:
    state = inspect.signature(ScalingPolicy.make_decision_for_running_worker_group).parameters
    assert state["worker_group_state"].annotation is WorkerGroupState
    assert issubclass(NoopDecision, ScalingDecision) and issubclass(ResizeDecision, ScalingDecision)


def test_each_error_of_ray_train_is_the_kind_that_the_engine_sorts() -> None:
    failed = WorkerHealthCheckFailedError("a worker did not answer", KeyError("x"))
    assert isinstance(failed.health_check_failure, KeyError)
    for kind in (WorkerGroupStartupFailedError, WorkerHealthCheckTimeoutError):
        assert isinstance(kind("a worker"), Exception)


def test_the_callbacks_that_are_left_out_are_among_those_that_ray_train_creates() -> None:
    created = inspect.getsource(DataParallelTrainer._create_default_callbacks)
    names = [
        "AcceleratorSetupCallback",
        "BackendSetupCallback",
        "DatasetsCallback",
        "PlacementGroupCleanerCallback",
    ]
    assert [callback.__name__ for callback in _REPLACED] == names
    for name in names:
        assert f"{name}(" in created


def test_each_private_name_of_ray_is_explained_and_has_a_contract() -> None:
    # This file, and the one about values.
    contracts = sorted(Path(__file__).parent.glob("test_ray_contract*.py"))
    contract = "".join(path.read_text(encoding="utf-8") for path in contracts)
    explained = (ROOT / "docs" / "ray_internals.md").read_text(encoding="utf-8")
    used = {
        name for path in DOOR.glob("*.py") for name in private_names_of_ray(path.read_text(encoding="utf-8"))
    }
    # Keep the longest of nested names, such as `ray._private.state.actors`.
    names = {name for name in used if not any(other.startswith(f"{name}.") for other in used)}
    assert "ray._private.state.state.get_draining_nodes" in names
    for text in (contract, explained):
        assert {name for name in names if not says(text, name)} == set()


def says(text: str, name: str) -> bool:
    """Whether the text has the last part of the dotted name, or the class that it is a member of."""
    *_, owner, last = name.split(".")
    return last in text or (owner[0].isupper() and owner in text)


def overridden() -> Iterator[tuple[str, object]]:
    """Each method of Ray's that a class of `ray_train` overrides: its name here, and Ray's function."""
    for path in DOOR.glob("*.py"):
        module = importlib.import_module(f"orchestrator.engine.ray_train.{path.stem}")
        for kind in vars(module).values():
            if isinstance(kind, type) and kind.__module__ == module.__name__:
                for name in vars(kind):
                    bases = [b for b in kind.__mro__[1:] if inspect.isfunction(vars(b).get(name))]
                    if bases and bases[0].__module__.startswith("ray."):
                        yield f"{kind.__name__}.{name}", vars(bases[0])[name]


def test_each_method_of_rays_that_the_engine_overrides_has_a_contract() -> None:
    """A method that Ray renamed would not be called any more, and no type check says so."""
    known = [found(name) for name in PARAMETERS]
    missing = {
        name for name, theirs in overridden() if theirs not in known and not name.endswith(".__init__")
    }
    assert missing == set()


def test_the_controller_makes_its_groups_from_the_class_that_the_engine_sets() -> None:
    source = inspect.getsource(found(f"{V2}.execution.controller.controller:TrainController"))
    assert "worker_group_cls = WorkerGroup" in source
    assert "self.worker_group_cls.create(" in source


@pytest.mark.parametrize(
    ("caller", "replaced"),
    [
        ("ray._private.worker:init", "ray._private.parameter.RayParams("),
        ("ray._private.worker:init", "services.resolve_ip_for_localhost(_node_ip_address)"),
        ("ray._private.worker:init", "ray._private.utils.get_entrypoint_name()"),
        ("ray._private.worker:connect", "if not job_config._client_job and not job_config._runtime_env_has"),
        ("ray._private.services:start_ray_process", "ConsolePopen(\n        command,"),
        ("ray._private.node:Node.start_head_processes", "self._ray_params.no_monitor"),
        ("ray._private.node:Node.start_ray_processes", "self._ray_params.include_log_monitor"),
    ],
)
def test_ray_looks_up_each_name_that_we_replace_where_we_replace_it(caller: str, replaced: str) -> None:
    assert replaced in inspect.getsource(found(caller))
