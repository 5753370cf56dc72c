"""What Ray gives through its private names: values, records and files, without a running Ray."""

import inspect
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from jsonschema.exceptions import ValidationError

from orchestrator.engine.ray_train.no_notes import no_notes
from orchestrator.engine.ray_train.ray_core import NODE_ID_LABEL


def test_the_cause_of_an_actors_death_names_memory_and_hosts() -> None:
    from ray.core.generated.common_pb2 import (  # type: ignore[attr-defined]
        ActorDeathCause,
        ActorDiedErrorContext,
    )

    died = ActorDeathCause(
        actor_died_error_context=ActorDiedErrorContext(reason=ActorDiedErrorContext.NODE_DIED)
    )
    assert died.HasField("actor_died_error_context") and not died.HasField("oom_context")
    assert died.actor_died_error_context.reason == ActorDiedErrorContext.NODE_DIED


def test_the_token_can_be_read_whatever_the_mode_and_forgotten() -> None:
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    loader = AuthenticationTokenLoader.instance()
    assert callable(loader.reset_cache)
    assert "ignore_auth_mode" in (type(loader).get_raw_token.__doc__ or "") + str(
        inspect.signature(type(loader).get_raw_token)
    )


def test_the_poll_status_shows_errors_by_rank() -> None:
    from ray.train.v2._internal.execution.worker_group.poll import WorkerGroupPollStatus, WorkerStatus

    failed = WorkerStatus(running=False, error=ValueError("x"))
    status = WorkerGroupPollStatus({0: WorkerStatus(running=True), 1: failed})
    assert list(status.errors) == [1] and isinstance(status.errors[1], ValueError)


def test_ray_train_finds_its_marker_in_storage_that_keeps_nothing(tmp_path: Path) -> None:
    from ray.train.v2._internal.execution.storage import StorageContext

    StorageContext("no-notes", experiment_dir_name="run", storage_filesystem=no_notes())
    assert list(tmp_path.iterdir()) == []


def test_files_of_ray_trains_checkpoint_manager_are_discarded(
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


def test_a_run_gives_ray_train_the_filesystem_that_discards_its_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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


def test_the_label_of_a_node_is_the_one_that_ray_gives_it() -> None:
    from ray._raylet import RAY_NODE_ID_KEY  # type: ignore[attr-defined]

    assert NODE_ID_LABEL == RAY_NODE_ID_KEY


def test_the_heads_resource_is_the_one_that_the_drill_spares() -> None:
    from ray._common.constants import HEAD_NODE_RESOURCE_NAME

    from orchestrator.drill.hosts import _HEAD

    assert _HEAD == HEAD_NODE_RESOURCE_NAME


def test_ray_accepts_the_launcher_file_that_we_ship() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    text = (Path(__file__).parents[3] / "cluster_configs" / "ray" / "on-premise.yaml").read_text(
        encoding="utf-8"
    )
    config = prepare_config(yaml.safe_load(text))
    validate_config(config)
    with pytest.raises(ValidationError, match="no_such_key"):
        validate_config({**config, "no_such_key": 1})


def test_ranks_inherit_that_print_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.engine.ray_train import launch

    name = "RAY_TRAIN_ENABLE_PRINT_PATCH"
    monkeypatch.setenv(name, launch._CONTROLLER_ENVIRONMENT[name])
    assert launch.get_env_vars_to_propagate()[name] == "0"
