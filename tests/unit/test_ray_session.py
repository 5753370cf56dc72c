"""A session that Ray would run without authentication is refused before Ray is asked."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.job.spec.job_spec import ClusterSpec
from orchestrator.ray_cluster import local
from orchestrator.ray_cluster.local import interrupt_nobody
from orchestrator.ray_cluster.session import ray_session
from sdnet.errors import InputError
from tests.unprivileged import as_nobody


def test_ray_that_was_imported_without_authentication_is_refused_with_the_remedy(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delenv("RAY_AUTH_MODE")
    with (
        pytest.raises(InputError, match=r"RAY_AUTH_MODE is not set .* set RAY_AUTH_MODE=token"),
        ray_session(ClusterSpec()),
    ):
        pass


def test_a_deleted_current_directory_is_named_before_ray_starts(monkeypatch, tmp_path) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setenv("RAY_AUTH_MODE", "wrong")  # if the directory is overlooked, no Ray is started either
    with (
        pytest.raises(InputError, match="the current directory was deleted, .*; change to one that exists"),
        ray_session(ClusterSpec()),
    ):
        pass


@pytest.mark.parametrize(
    ("limit", "store"), [(resource.RLIM_INFINITY, None), (8 << 30, 512 << 20), (1 << 30, 128 << 20)]
)
def test_where_the_shell_limits_addresses_ray_gets_a_small_object_store(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: int, store: int | None
) -> None:
    given: dict[str, object] = {}
    monkeypatch.setattr("ray.init", lambda **options: given.update(options))
    monkeypatch.setattr(local, "interrupt_nobody", lambda: None)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    local.start_ray(tmp_path, on_loopback=True)
    assert given["object_store_memory"] == store


def test_too_few_open_files_are_refused_before_ray_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    line = r"this shell limits a process to 64 open files \(`ulimit -n`\), and Ray needs 128; raise the limit"
    with pytest.raises(InputError, match=line), ray_session(ClusterSpec()):
        pass


def test_a_user_may_run_a_job_in_the_idle_class() -> None:
    def classes() -> str:
        interrupt_nobody()
        before = os.sched_getscheduler(0)
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        interrupt_nobody()
        return f"{before} {os.sched_getscheduler(0)}"

    assert as_nobody(classes) == f"{os.SCHED_BATCH} {os.SCHED_IDLE}"


# Ray waits for a server without a limit, and its C++ code is not interrupted by a handler in Python.
_HANGS = """
import os, signal, threading
from orchestrator.ray_cluster import signal_handlers
signal_handlers._HANGS_AFTER_S = 0.1
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with signal_handlers.keeping_signal_handlers():
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait()
"""


def test_a_signal_ends_a_start_of_ray_that_hangs_and_an_ignored_one_does_not() -> None:
    ended = subprocess.run([sys.executable, "-c", _HANGS], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (143, "sdnet-orchestrate: interrupted\n")
