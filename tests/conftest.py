"""What all tests share: where reference data lie, no silent skips, and nothing left behind."""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]
# Words in the command line of processes that this project starts, itself or through Ray.
_OURS = (
    "raylet",
    "gcs_server",
    "ray::",
    "orchestrator",
    "log_monitor",
    "dashboard/agent",
    "runtime_env/agent",
)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference numbers and real image pairs, which are not part of the project."""
    folder = ROOT.parent / "shared"
    if not (folder / "reference").is_dir():
        pytest.skip(f"{folder} is not there; it holds the reference numbers and the real pairs")
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    """With SDNET_FORBID_SKIPS=1 (continuous integration) a skipped test is a failed one."""
    report = yield
    forbidden = os.environ.get("SDNET_FORBID_SKIPS") == "1" and item.get_closest_marker("npu") is None
    if report.skipped and forbidden and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped where skipping is forbidden: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Fails the session when a process of ours, a namespace or shared memory outlives it."""
    before = _processes(), _names("/run/netns"), _names("/dev/shm")
    yield
    gone, alive = psutil.wait_procs(
        [psutil.Process(pid) for pid in _alive(_processes() - before[0])], timeout=20
    )
    left = [f"process {process.pid}: {' '.join(process.cmdline())[:120]}" for process in alive]
    left += [f"namespace {name}" for name in _names("/run/netns") - before[1]]
    left += [f"shared memory {name}" for name in _names("/dev/shm") - before[2]]
    assert not left, "left behind: " + "; ".join(left)


def _processes() -> set[int]:
    """Ids of the running processes that look like ours."""
    found = set()
    for process in psutil.process_iter(["cmdline", "status"]):
        text = " ".join(process.info["cmdline"] or ())
        if process.pid != os.getpid() and any(word in text for word in _OURS) and "pytest" not in text:
            found.add(process.pid)
    return found


def _alive(pids: set[int]) -> list[int]:
    return [pid for pid in pids if psutil.pid_exists(pid)]


def _names(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()} if Path(folder).is_dir() else set()
