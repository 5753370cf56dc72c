"""A session that Ray would run without authentication is refused before Ray is asked."""

import os
import re
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
    ("addresses", "file", "store"),
    [
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None),
        (8 << 30, resource.RLIM_INFINITY, 512 << 20),
        (1 << 30, resource.RLIM_INFINITY, 128 << 20),
        (resource.RLIM_INFINITY, 1 << 30, 512 << 20),
        (4 << 30, 1 << 30, 256 << 20),
    ],
)
def test_where_the_shell_limits_addresses_or_files_ray_gets_a_small_object_store(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, addresses: int, file: int, store: int | None
) -> None:
    given: dict[str, object] = {}
    limits = {resource.RLIMIT_AS: addresses, resource.RLIMIT_FSIZE: file}
    monkeypatch.setattr("ray.init", lambda **options: given.update(options))
    monkeypatch.setattr(local, "interrupt_nobody", lambda: None)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limits[kind], limits[kind]))
    local.start_ray(tmp_path, on_loopback=True)
    assert given["object_store_memory"] == store


@pytest.mark.parametrize(
    ("kind", "limit", "said"),
    [
        (resource.RLIMIT_NOFILE, 64, "a process to 64 open files (`ulimit -n`), and Ray needs 128"),
        (
            resource.RLIMIT_FSIZE,
            1 << 20,
            "a file to 1024 KiB (`ulimit -f`), and Ray's object store needs 262144",
        ),
    ],
)
def test_a_limit_that_is_too_tight_is_refused_before_ray_starts(
    monkeypatch: pytest.MonkeyPatch, kind: int, limit: int, said: str
) -> None:
    ours = resource.getrlimit
    monkeypatch.setattr(resource, "getrlimit", lambda asked: (limit, limit) if asked == kind else ours(asked))
    line = re.escape(f"this shell limits {said}; raise the limit")
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


# A Tensor is one of the last things that `import mindspore` brings.
_SIGNAL_IN_THE_IMPORT = """
import contextlib, os, signal, sys
from sdnet.cli.interruption import admit_signals, exit_code_of, hold_signals, interruptible
hold_signals()
from orchestrator.job import launch
from orchestrator.job.spec.job_spec import spec_from_dict
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "mindspore._c_expression":
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, Finder())
launch.ray_session = lambda cluster: contextlib.nullcontext()
job = {"name": "a", "storage": sys.argv[1], "data": {"synthetic": {"pairs": 16}}, "train": {"batch": 8}}
try:
    with interruptible():
        admit_signals()
        launch.launch(spec_from_dict(job, "job"))
except KeyboardInterrupt as interruption:
    print(exit_code_of(interruption), hasattr(sys.modules["mindspore"], "Tensor"))
"""


def test_a_signal_waits_until_a_launch_has_imported_mindspore(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _SIGNAL_IN_THE_IMPORT, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ended.returncode, ended.stdout) == (0, "143 True\n"), ended.stderr
