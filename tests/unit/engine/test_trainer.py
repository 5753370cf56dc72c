"""How a `MindSporeTrainer` handles its arguments, before anything starts."""

import asyncio
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from ray.train import FailureConfig, RunConfig, ScalingConfig

from orchestrator import MindSporeConfig, MindSporeTrainer, RecoveryConfig
from orchestrator.engine.function import compile_key, module_of
from orchestrator.engine.ray_train.launch import exiting_on_sigterm
from orchestrator.errors import InputError


def train() -> None:
    """A training function that is never called."""


def train_with(config: dict[str, object]) -> None:
    """A training function with a configuration."""


def train_with_two(config: object, rate: object) -> None:
    """More parameters than a run can give."""


def train_lazily(config: object) -> Iterator[int]:
    """A generator."""
    yield 1


async def train_later(config: object) -> None:
    """A coroutine."""
    await asyncio.sleep(0)


def test_two_runs_that_are_given_one_configuration_do_not_share_it(tmp_path: Path) -> None:
    given = MindSporeConfig(threads=2)
    for name in ("first", "second"):
        run = RunConfig(name=name, storage_path=str(tmp_path))
        MindSporeTrainer(train, mindspore_config=given, run_config=run)
    assert given == MindSporeConfig(threads=2)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("max_failures", "3", "max_failures is '3'; use a whole number from 0"),
        ("max_failures", 1.5, "max_failures is 1.5; use a whole number from 0"),
        ("max_failures", True, "max_failures is True; use a whole number from 0"),
        ("keep", 0, "keep is 0; use a whole number from 1"),
        ("keep", None, "keep is None; use a whole number from 1"),
        ("workers_per_host", 0, "workers_per_host is 0; use a whole number from 1, or None"),
        ("step_timeout_s", float("nan"), "step_timeout_s is nan; use seconds above 0, or None"),
        ("storage_timeout_s", None, "storage_timeout_s is None; use seconds above 0"),
        ("checkpoint_every_s", -1, "checkpoint_every_s is -1; use seconds from 0, or None"),
        ("standbys", "no", "standbys is 'no'; use True or False"),
        ("best", ["loss"], r"best is \['loss'\]; use the name of a metric, or None"),
        ("compile_key", "../key", r"compile_key is '../key'; use letters, digits and - _ ., or None"),
    ],
)
def test_a_wrong_field_of_the_recovery_is_named(field: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^recovery {message}$"):
        RecoveryConfig(**{field: value})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("device", "Ascend", "device is 'Ascend'; use one of cpu, ascend"),
        ("soc", "910", "soc is '910'; use one of 910a, 910b, a3"),
        ("rendezvous", "tcp", "rendezvous is 'tcp'; use one of auto, store, dynamic_cluster, rank_table"),
        ("collective", "hccl", "collective is 'hccl'; use one of auto, mccl"),
        ("threads", 0, "threads is 0; use a whole number from 1"),
        ("threads", "2", "threads is '2'; use a whole number from 1"),
        ("start_timeout_s", 0, "start_timeout_s is 0; use seconds above 0"),
        ("failure_budget_s", "2", "failure_budget_s is '2'; use seconds above 0"),
        ("hosts", ["h1"], "hosts is a list; use a dictionary"),
        ("preload", "model", "preload is 'model'; use a tuple of modules' names"),
    ],
)
def test_a_wrong_field_of_the_start_of_mindspore_is_named(field: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^mindspore_config {message}$"):
        MindSporeConfig(**{field: value})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recovery": {"keep": 3}}, r"recovery is a dict; give a RecoveryConfig\(...\)"),
        ({"mindspore_config": {"threads": 3}}, r"mindspore_config is a dict; give a MindSporeConfig\(...\)"),
        ({"scaling_config": {"num_workers": 2}}, r"scaling_config is a dict; give a ScalingConfig\(...\)"),
        ({"scaling_config": ScalingConfig(num_workers=0)}, "num_workers is 0; a group has at least 1 rank"),
        ({"scaling_config": ScalingConfig(use_gpu=True)}, "scaling_config sets use_gpu, which this engine"),
        ({"run_config": {"name": "x"}}, r"run_config is a dict; give a RunConfig\(...\)"),
        ({"run_config": None}, "run_config has no name"),
        ({"run_config": RunConfig()}, "run_config has no name"),
        ({"run_config": RunConfig("a/b")}, "run_config.name is 'a/b'; give the name of one folder"),
        ({"run_config": RunConfig("..")}, "run_config.name is '..'; give the name of one folder"),
        ({"run_config": RunConfig("x", "")}, "run_config.storage_path is ''; give a directory"),
        ({"run_config": RunConfig("x", "s3://b/x")}, "storage_path is 's3://b/x'; only a directory"),
        (
            {"run_config": RunConfig("x", failure_config=FailureConfig(max_failures=3))},
            "run_config sets failure_config, which this engine does not use",
        ),
    ],
)
def test_a_wrong_argument_is_named(arguments: Any, message: str) -> None:
    given = {"run_config": RunConfig(name="x"), **arguments}
    with pytest.raises(InputError, match=message):
        MindSporeTrainer(train, **given)


@pytest.mark.parametrize(
    ("function", "config", "message"),
    [
        ("train", None, "the training function is 'train'; pass the function itself"),
        (RuntimeError, None, "the training function is <class 'RuntimeError'>; pass the function itself"),
        (
            train_with_two,
            {"rate": 1},
            r"'train_with_two' has the parameters \(config: object, rate: object\)",
        ),
        (
            train,
            {"rate": 1},
            "train_loop_config is given, but the training function 'train' has no parameter",
        ),
        (train_with, [1], "train_loop_config is a list; give a dictionary"),
        (train_lazily, None, "'train_lazily' is a generator or a coroutine, so a call runs nothing"),
        (train_later, None, "'train_later' is a generator or a coroutine, so a call runs nothing"),
    ],
)
def test_a_function_that_ranks_cannot_call_is_refused(function: Any, config: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        MindSporeTrainer(function, train_loop_config=config, run_config=RunConfig(name="x"))


def test_what_cannot_be_sent_to_the_ranks_is_refused_before_the_run_begins(tmp_path: Path) -> None:
    run = RunConfig(name="x", storage_path=str(tmp_path))
    trainer = MindSporeTrainer(train_with, train_loop_config={"lock": threading.Lock()}, run_config=run)
    with pytest.raises(InputError, match="cannot be sent to the ranks .*cannot pickle '_thread.lock' object"):
        trainer.fit()
    assert not (tmp_path / "x").exists()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    trainer = MindSporeTrainer(train, run_config=RunConfig(name="x", storage_path=str(tmp_path / "file")))
    with pytest.raises(InputError, match="file/x cannot be made .Not a directory: .*; correct run_config"):
        trainer.fit()


def test_the_run_of_a_launch_is_not_trained_by_another_function(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "job.yaml").touch()
    trainer = MindSporeTrainer(train, run_config=RunConfig(name="x", storage_path=str(tmp_path)))
    with pytest.raises(InputError, match="x is the run of a job of .*; give run_config another name"):
        trainer.fit()
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["job.yaml"]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script that a user runs."""
    module = ModuleType("__main__")
    module.__file__ = "/home/user/train_digits.py"
    module.__spec__ = None
    source = """
def train(config): pass
def made():
    def inner(config): pass
    return inner
shadowed = train
def train(config): pass
short = lambda config: None
"""
    exec(source, module.__dict__)  # noqa: S102 - the only way to have functions of `__main__` here
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        (lambda script: script.made(), r"'made.<locals>.inner' is not at the top level of the script"),
        (lambda script: script.short, "'<lambda>' is not at the top level of the script"),
        (lambda script: script.shadowed, "'train' is not at the top level of the script"),
        (lambda script: functools.partial(script.train), "functools.partial of the script's own function"),
    ],
)
def test_a_function_that_the_ranks_do_not_find_in_the_script_is_refused(
    choose: Callable[[ModuleType], Any], message: str, script: ModuleType
) -> None:
    MindSporeTrainer(script.train, run_config=RunConfig(name="x"))
    with pytest.raises(InputError, match=message):
        MindSporeTrainer(choose(script), run_config=RunConfig(name="x"))


def test_a_module_that_python_runs_has_its_full_name_in_the_ranks(script: ModuleType) -> None:
    assert module_of(script.train) == "train_digits"
    script.__spec__ = type("Spec", (), {"name": "project.train_digits"})()  # as `python -m` sets it
    assert module_of(script.train) == "project.train_digits"


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (None, "is defined interactively; put it into a file"),  # `python -c`, a notebook
        ("<stdin>", "is defined interactively; put it into a file"),  # `python - < script`
        (
            "/jobs/train.v2.py",
            "is in the script /jobs/train.v2.py, and ranks cannot import a file of that name",
        ),
        ("/jobs/train", "is in the script /jobs/train, .*; let it end with .py, without another dot"),
    ],
)
def test_a_script_that_the_ranks_cannot_import_is_refused_before_anything_starts(
    file: str | None, message: str, script: ModuleType
) -> None:
    script.__file__ = file
    with pytest.raises(InputError, match=message):
        MindSporeTrainer(script.train, run_config=RunConfig(name="x"))


def test_a_function_of_a_bare_exec_is_refused_as_interactive() -> None:
    namespace: dict[str, Any] = {}
    exec("def train(): pass", {}, namespace)  # noqa: S102
    with pytest.raises(InputError, match="is defined interactively; put it into a file"):
        MindSporeTrainer(namespace["train"], run_config=RunConfig(name="x"))


def test_graphs_are_cached_on_request_only_as_mindspore_does_not_compare_them_with_the_code() -> None:
    assert not RecoveryConfig().compile_cache


def test_the_key_of_compiled_graphs_differs_for_arrays_and_takes_any_key() -> None:
    first, second = np.zeros(5000), np.zeros(5000)
    second[2500] = 1
    keys = [compile_key([], {"table": array}) for array in (first, second)]
    assert keys[0] != keys[1] and keys[0] == compile_key([], {"table": first.copy()})
    assert compile_key([], {1: 2, "a": 3})


def of_ray(signum: int, frame: object) -> None:
    """Stands for the handler that `ray.init` installs."""


of_ray.__module__ = "ray.worker"


@pytest.mark.parametrize("before", [signal.SIG_DFL, of_ray], ids=["no handler", "Ray's handler"])
def test_sigterm_becomes_an_exception_that_ends_the_group_and_the_handler_comes_back(before: Any) -> None:
    found = signal.signal(signal.SIGTERM, before)
    try:
        with pytest.raises(SystemExit) as caught, exiting_on_sigterm():
            try:
                signal.raise_signal(signal.SIGTERM)
            except SystemExit:
                raise SystemExit(1) from None  # as a call of Ray does
        assert caught.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, found)


def test_a_handler_of_the_users_own_stays() -> None:
    received: list[int] = []
    found = signal.signal(signal.SIGTERM, lambda signum, frame: received.append(signum))
    try:
        with exiting_on_sigterm():
            os.kill(os.getpid(), signal.SIGTERM)
        assert received == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, found)
