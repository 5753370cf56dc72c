"""Changes what `ray.init` does where Ray has no setting for it: the only place that replaces names of Ray.

Each replacement lasts as long as its `with` block. `tests/unit/engine/test_ray_replaced.py` proves each effect.
"""

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import ModuleType

from ray._private import parameter, services, utils
from ray.job_config import JobConfig

from orchestrator.module_path import imports_from_here


@contextmanager
def ray_for_one_job() -> Iterator[None]:
    """Start Ray for one job on this host.

    * Each of Ray's processes gets its own process group, as its workers always do. Otherwise a signal to the
      launcher's group, as `timeout` sends it, would end Ray before the ranks have saved.
    * Neither the autoscaler's monitor nor the log monitor runs: this cluster cannot grow, and each rank writes its own
      log.
    * A loopback address is kept. Ray would replace it by an address that other hosts can reach.
    """
    with ExitStack() as replaced:
        unmonitored = {"no_monitor": True, "include_log_monitor": False}
        for module, name, value in (
            (services, "ConsolePopen", partial(_in_own_process_group, services.ConsolePopen)),
            (parameter, "RayParams", partial(parameter.RayParams, **unmonitored)),  # type: ignore[arg-type]
            (services, "resolve_ip_for_localhost", _unchanged),
        ):
            replaced.enter_context(_replaced(module, name, value))
        yield


def job_settings(*, submitted: bool = False) -> JobConfig:
    """Let workers import modules from the current directory only if this process does.

    Ray puts that directory first in the `sys.path` of workers. Another version of this package in it, or a file
    `yaml.py`, would replace what the launcher uses. Ray leaves it out for the jobs of its client.
    submitted: the job is one of `ray job submit`, which prepares the directory.
    """
    return JobConfig(_client_job=not submitted and not imports_from_here())


@contextmanager
def command_line_shown_as(text: str) -> Iterator[None]:
    """Let Ray record `text` as the command line of this process.

    Ray 2.60 sends the real one to the cluster as UTF-8, and fails if a path in it has another encoding, such as GBK.
    """
    with _replaced(utils, "get_entrypoint_name", lambda: text):
        yield


@contextmanager
def _replaced(module: ModuleType, name: str, value: object) -> Iterator[None]:
    before = getattr(module, name)  # raises AttributeError if a later Ray has no such name
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _in_own_process_group(
    popen: Callable[..., subprocess.Popen[bytes]],
    command: list[str],
    preexec_fn: Callable[[], object] | None = None,
    **settings: object,
) -> subprocess.Popen[bytes]:
    def prepare() -> None:
        # The launcher blocks SIGTERM while Ray starts (ray_cluster/signal_handlers.py). Ray ends its processes
        # with that signal, so they must not inherit the block.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        if preexec_fn is not None:
            preexec_fn()

    return popen(command, preexec_fn=prepare, process_group=0, **settings)


def _unchanged(host: str) -> str:
    return host
