"""Environment variables with which Ray would not work are refused in one line, before Ray is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.job.spec.job_spec import ClusterSpec
from orchestrator.ray_cluster import environment
from orchestrator.ray_cluster.environment import check_environment
from orchestrator.ray_cluster.session import ray_session
from sdnet.cli.mindspore_variables import refuse_variables_mindspore_fails_on
from sdnet.errors import InputError

JOB = "{name: a, data: {synthetic: {pairs: 16}}, train: {batch: 8}}"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "RAY_TRAIN_V2_ENABLED",
            "0",
            "RAY_TRAIN_V2_ENABLED is '0', and training needs version 2 of Ray Train",
        ),
        ("RAY_TRAIN_V2_ENABLED", "no", "RAY_TRAIN_V2_ENABLED is 'no'"),
        (
            "PYTHONOPTIMIZE",
            "2",
            "PYTHONOPTIMIZE is '2', which removes the docstrings that Ray's agents read; set",
        ),
        ("RAY_AUTH_MODE", "off", "RAY_AUTH_MODE is 'off'; unset it, or set it to token"),
        ("RAY_health_check_period_ms", "1.5", "RAY_health_check_period_ms is '1.5', which Ray cannot read"),
        ("RAY_health_check_timeout_ms", "", "RAY_health_check_timeout_ms is '', which Ray cannot read"),
        ("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "often", "INTERVAL_S is 'often', not a number of seconds"),
        ("GLOG_v", "abc", 'GLOG_v is "abc", which MindSpore cannot read; set it to one of 0, 1, 2, 3, 4, or'),
        ("GLOG_stderrthreshold", "7", 'GLOG_stderrthreshold is "7", which MindSpore cannot read'),
        ("GLOG_logtostderr", "0", 'GLOG_logtostderr is 0 and GLOG_log_dir is "", where no folder can'),
        ("MS_JIT", "on", 'MS_JIT is "on", which MindSpore cannot read; set it to one of 0, 1, or unset it'),
        ("MS_DEV_JIT_SYNTAX_LEVEL", "3", 'MS_DEV_JIT_SYNTAX_LEVEL is "3", which MindSpore cannot read'),
        ("MINDSPORE_DUMP_CONFIG", "/nope", 'MINDSPORE_DUMP_CONFIG is "/nope", which is no file; correct it'),
    ],
)
def test_settings_that_no_job_can_run_with_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=said), ray_session(ClusterSpec()):
        pass


def test_of_several_settings_the_one_that_ray_cannot_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_max_io_workers", "3")
    check_environment()
    monkeypatch.setenv("RAY_object_timeout_milliseconds", "soon")
    with pytest.raises(InputError, match="RAY_object_timeout_milliseconds is 'soon'"):
        check_environment()


def test_a_host_too_slow_to_try_a_setting_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_LOAD_RAY_S", 0.001)
    monkeypatch.setenv("RAY_max_io_workers", "3")
    check_environment()


@pytest.mark.parametrize("folder", ["/proc/x", "/dev/null", "/dev/null/x"])
def test_a_folder_in_which_mindspore_cannot_write_its_log_is_refused(folder: str) -> None:
    variables = {"GLOG_logtostderr": "0", "GLOG_log_dir": folder}
    with pytest.raises(InputError, match=f'GLOG_log_dir is "{folder}", where no folder can be written; set'):
        refuse_variables_mindspore_fails_on(variables)


def test_values_that_mindspore_reads_are_not_refused(tmp_path: Path) -> None:
    log = {"GLOG_logtostderr": "0", "GLOG_log_dir": str(tmp_path / "made" / "by_mindspore")}
    refuse_variables_mindspore_fails_on({"GLOG_v": "4", "GLOG_stderrthreshold": "", "MS_JIT": "1", **log})
    refuse_variables_mindspore_fails_on({"GLOG_log_dir": "/proc/x"})  # without GLOG_logtostderr it is unused


def test_a_file_of_the_current_directory_is_not_taken_for_ray(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ray.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "0")
    check_environment()


def test_a_user_without_a_home_can_train() -> None:
    nobody_knows = "import pwd, os; pwd.getpwuid = {}.__getitem__; os.environ.pop('HOME', None)"
    train = (
        "from orchestrator.ray_cluster.environment import prepare_environment as it; it(); import ray.train"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{nobody_knows}; {train}; print(os.environ['HOME'])"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("/\n", 0), done.stderr


@pytest.mark.parametrize("command", ["launch", "preprocess"])
def test_a_command_refuses_such_a_setting_in_one_line(tmp_path: Path, command: str) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(JOB)
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", command, str(job), "--set", f"storage={tmp_path}"],
        env={**os.environ, "RAY_health_check_period_ms": "1.5"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "RAY_health_check_period_ms is '1.5'" in done.stderr
