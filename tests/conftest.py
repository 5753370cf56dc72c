"""Rules for the whole suite: nothing is skipped silently in CI, and nothing outlives it."""

import contextlib
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest

from orchestrator.engine.host.left_over import RUN_VARIABLE
from orchestrator.job.run_directory import RunDirectory
from orchestrator.telemetry.events import FirstStep
from tests.integration.clean_run import *  # noqa: F403 - fixtures of integration/ and of mounts/
from tests.launching import NoteSeconds, times_of

# A busy machine must not fail a property, so no example has a time limit.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

# Before any test module is read: Ray fixes its authentication when it is first imported.
os.environ.setdefault("RAY_AUTH_MODE", "token")
# A shell starts background jobs with Ctrl-C ignored, and `nohup` ignores SIGHUP. Our processes would inherit both.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

ROOT = Path(__file__).resolve().parents[1]
FORBID_SKIPS = "SDNET_FORBID_SKIPS"
# In the environment of every process that a test starts, so that a survivor can be found
# and two suites on one machine do not blame each other.
SESSION = "SDNET_TEST_SESSION"
# A process may need a moment to end after its signal.
_GRACE_S = 10.0


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with reference numbers and real pairs, next to the project."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: reference numbers and real pairs are not in the repository")
    return folder


@pytest.fixture
def note_seconds(record_testsuite_property: Callable[[str, object], None]) -> NoteSeconds:
    """Records in `--junitxml` the seconds from a unix time to the first new step after it."""

    def note(run: RunDirectory, since: float) -> None:
        waited = [t - since for t in times_of(run, FirstStep) if t > since]
        assert waited, f"{run.root.name}: no first step after {since}"
        record_testsuite_property(f"{run.root.name}: seconds to the first new step", round(waited[0], 1))

    return note


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    expected = hasattr(report, "wasxfail") or item.get_closest_marker("npu") is not None
    if report.skipped and not expected and os.environ.get(FORBID_SKIPS) == "1":
        _fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped and os.environ.get(FORBID_SKIPS) == "1":
        _fail(report)
    return report


def _fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{FORBID_SKIPS}=1 and this was skipped: {reason}"


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Fails the session when a process, a file or a namespace of the suite remains at its end."""
    began = time.time()
    shared_memory = _names("/dev/shm")
    # Set before the first temporary file: failed tests keep their tmp_path where pytest has always put it.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    _remove_scratch_of_killed_suites()
    # Short, because a Unix socket's path holds 107 bytes and Ray needs most of them.
    scratch = Path(tempfile.gettempdir()) / f"sdn-{os.getpid()}"
    scratch.mkdir(mode=0o700)
    settings = {SESSION: scratch.name, "TMPDIR": str(scratch), "RAY_TMPDIR": str(scratch)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        patch.setattr(tempfile, "tempdir", str(scratch))
        yield
    left = [f"process {process}" for process in _survivors(scratch, began)]
    # Ray leaves the logs of its sessions behind.
    left += [f"{scratch}/{name}" for name in _names(scratch) - {"ray"}]
    left += [f"/dev/shm/{name}" for name in _orphaned(_names("/dev/shm") - shared_memory)]
    left += [f"namespace {name}" for name in _names("/run/netns") if _is_ours(name)]
    shutil.rmtree(scratch)
    assert not left, "left behind by the tests: " + "; ".join(sorted(left))


@pytest.fixture(autouse=True)
def no_rank_outlives_its_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that uses Ray when a worker of its runs outlives it."""
    yield
    if request.node.get_closest_marker("integration"):
        ranks = [process for process in psutil.process_iter() if _is_rank(process)]
        _, alive = psutil.wait_procs(ranks, timeout=_GRACE_S)
        assert not alive, f"outlive the test: {', '.join(map(_described, alive))}"


def _is_rank(process: psutil.Process) -> bool:
    """Whether the process is a worker or a scheduler of a launch of this suite."""
    try:
        environment = process.environ()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
    return RUN_VARIABLE in environment and environment.get(SESSION) == os.environ[SESSION]


def _remove_scratch_of_killed_suites() -> None:
    for path in Path(tempfile.gettempdir()).glob("sdn-*"):
        pid = path.name.split("-")[1]
        if pid.isdigit() and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid))):
            with contextlib.suppress(FileNotFoundError):  # another suite may be removing it, too
                shutil.rmtree(path)


def _names(folder: str | Path) -> set[str]:
    path = Path(folder)
    return {entry.name for entry in path.iterdir()} if path.is_dir() else set()


def _is_ours(name: str) -> bool:
    """Whether the test bed of this suite created the namespace; hosts/network.py names them."""
    return re.fullmatch(rf"sdn{os.getpid()}t[0-9A-F]+[a-z]\d*", name) is not None


def _survivors(scratch: Path, began: float) -> list[str]:
    """The processes that tests have started and that do not end by themselves."""
    ours = [p for p in psutil.process_iter() if p.pid != os.getpid() and _started_by(p, scratch, began)]
    _, alive = psutil.wait_procs(ours, timeout=_GRACE_S)
    return [_described(process) for process in alive]


def _started_by(process: psutil.Process, scratch: Path, began: float) -> bool:
    try:
        if process.create_time() < began - 1 or process.status() == psutil.STATUS_ZOMBIE:
            return False
        environment = process.environ()
        if environment.get(SESSION) == scratch.name:
            return True
        # A process that renamed itself, as Ray's agents do, may have overwritten its environment.
        return not environment and any(f.path.startswith(f"{scratch}/") for f in process.open_files())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _described(process: psutil.Process) -> str:
    try:
        return f"{process.pid} ({' '.join(process.cmdline())[:120]})"
    except psutil.NoSuchProcess:
        return str(process.pid)


def _orphaned(names: set[str]) -> set[str]:
    """The files of shared memory that no living process has open or mapped."""
    held: set[str] = set()
    for maps in Path("/proc").glob("[0-9]*/maps") if names else ():
        try:
            held |= {name for name in names if f"/dev/shm/{name}" in maps.read_text(errors="replace")}
        except OSError:
            continue  # the process has ended, or we may not read it
    return names - held
