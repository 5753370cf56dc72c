"""Output that cannot be printed never ends a command, and output is never read as markup."""

import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.check.judge import Finding
from orchestrator.cli.commands.check import print_findings
from orchestrator.cli.endings import run_to_exit_code
from orchestrator.cli.terminal import plain_console
from orchestrator.job.run_directory import RunDirectory
from orchestrator.report.tables import print_status
from sdnet.cli.command_line import print_any_text

COMMAND = [sys.executable, "-m", "orchestrator.cli"]
FULL = Path("/dev/full")
ODD = "/data/[/]/[red]:key:"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(f"name: j\nstorage: {tmp_path}\ntrain: {{recipe: demo, batch: 8}}\n")
    return path


@pytest.fixture
def long_log(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "long")
    run.create()
    run.events.touch()
    (run.logs / "rank_0.log").write_text("a line of the log\n" * 200_000)
    return run


def run(*arguments: object, **streams: object) -> "subprocess.CompletedProcess[str]":
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, text=True, **{"stderr": subprocess.PIPE, **streams})  # type: ignore[call-overload]


def test_a_result_that_cannot_be_printed_is_a_failure_in_one_line(job: Path) -> None:
    with FULL.open("wb") as full:
        done = run("plan", job, "--json", stdout=full)
    assert (done.returncode, done.stderr) == (
        1,
        "sdnet-orchestrate: standard output could not be written (No space left on device)\n",
    )


def test_a_finished_run_stays_a_success_when_its_last_line_cannot_be_printed(job: Path) -> None:
    finished = RunDirectory(job.parent / "j")
    finished.create()
    script = (
        "import sys; from orchestrator import cli; from orchestrator.job import launch\n"
        "launch.launch = lambda spec: launch.Outcome({'name': 'j', 'status': 'succeeded'}, True)\n"
        f"sys.argv = ['sdnet-orchestrate', 'launch', {str(job)!r}]; cli.main()"
    )
    with FULL.open("wb") as full:
        done = subprocess.run([sys.executable, "-c", script], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0
    assert (
        done.stderr == "sdnet-orchestrate: standard output could not be written (No space left on device)\n"
    )


def test_a_reader_that_leaves_early_is_no_failure(long_log: RunDirectory) -> None:
    with subprocess.Popen(
        [*COMMAND, "logs", str(long_log.root), "--rank", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as logs:
        assert logs.stdout is not None and logs.stderr is not None
        assert logs.stdout.readline() == b"a line of the log\n"
        logs.stdout.close()
        assert (logs.wait(), logs.stderr.read()) == (0, b"")


def test_closed_streams_are_no_failure(job: Path) -> None:
    for closed in (">&-", "<&- >&- 2>&-"):
        shell = f'exec "$@" {closed}'
        done = subprocess.run(["sh", "-c", shell, "sh", *COMMAND, "plan", str(job)], capture_output=True)
        assert (done.returncode, done.stderr) == (0, b""), closed


def test_errors_that_cannot_be_printed_leave_the_exit_code(tmp_path: Path) -> None:
    with FULL.open("wb") as full:
        assert run("plan", tmp_path / "none.yaml", stderr=full).returncode == 2


def test_a_link_in_place_of_a_log_ends_a_drill_in_one_line(job: Path) -> None:
    clean = RunDirectory(job.parent / "j-drill-clean")
    clean.create()
    (clean.logs / "launch.log").symlink_to(job)
    before = job.read_bytes()
    done = run("drill", job, "--faults", "kill-rank", "--count", "1")
    log = clean.logs / "launch.log"
    assert (done.returncode, done.stderr) == (
        1,
        f"sdnet-orchestrate: {log}: Too many levels of symbolic links; look at it and its disk, "
        "and run this again\n",
    )
    assert job.read_bytes() == before


def test_an_interrupted_command_ends_in_one_line() -> None:
    script = (
        "import sys, threading; from orchestrator import cli; import orchestrator.cli.commands.plan as plan\n"
        "def wait(*_):\n    print('waits', flush=True); threading.Event().wait()\n"
        "plan.read_job = wait\n"
        "sys.argv = ['sdnet-orchestrate', 'plan', 'job.yaml']; cli.main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "waits\n"
        process.send_signal(signal.SIGHUP)
        assert process.communicate()[1] == "sdnet-orchestrate: interrupted\n"
    assert process.returncode == 129


def test_bytes_and_letters_that_an_encoding_lacks_are_printed_as_escapes() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    print_any_text(stream)
    print("/data/\udcc3\udca9 \u00fc", file=stream, flush=True)
    assert raw.getvalue() == rb"/data/\xc3\xa9 \xfc" + b"\n"


@pytest.mark.parametrize("columns", ["0", "1"])
def test_a_width_that_leaves_no_room_for_text_is_ignored(
    monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    console = plain_console()
    console.file = io.StringIO()
    console.print("is finished; nothing to do")
    assert console.file.getvalue() == "is finished; nothing to do\n"


def test_paths_with_brackets_and_colons_are_printed_as_they_are() -> None:
    console = plain_console()
    console.file = io.StringIO()
    console.width = 200
    console.print(f"{ODD} is finished; nothing to do")
    print_status(console, {"name": ODD, "state": "running", "stage": ODD})
    print_findings(console, (Finding(ODD, "storage", "fail", ODD, ODD),))
    assert console.file.getvalue().count(ODD) == 6


@pytest.mark.parametrize("package", ["sdnet.__main__", "orchestrator.cli"])
def test_an_address_space_limit_under_which_libraries_hang_is_refused(package: str) -> None:
    limited = "import resource; resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20)); "
    program = f"{limited}from {package} import main; main()"
    done = subprocess.run([sys.executable, "-c", program, "plan"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(
        "this shell limits a process to 400 MiB of addresses (`ulimit -v`), and the libraries need 512; "
        "raise the limit\n"
    )


@pytest.mark.parametrize("command", [["sdnet", "export"], ["orchestrator.cli", "export"]])
def test_an_address_space_limit_under_which_mindspore_aborts_is_refused(command: list[str]) -> None:
    program = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_AS, (2000 << 20, 2000 << 20)); "
        f"sys.argv = [{command[0]!r}, {command[1]!r}, '--checkpoint', '/x.ckpt', '--out', '/x.mindir']; "
        f"runpy.run_module({command[0]!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert (
        "limits a process to 2000 MiB of addresses (`ulimit -v`), and the libraries need 2560" in done.stderr
    )


@pytest.mark.parametrize("package", ["sdnet", "orchestrator.cli"])
def test_a_variable_that_mindspore_cannot_read_is_refused_in_one_line(package: str) -> None:
    command = [sys.executable, "-m", package, "export", "--checkpoint", "/x.ckpt", "--out", "/x.mindir"]
    done = subprocess.run(command, env={**os.environ, "GLOG_v": "abc"}, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert 'GLOG_v is "abc", which MindSpore cannot read' in done.stderr


@pytest.mark.parametrize(
    ("package", "name", "imported"),
    [("sdnet", "sdnet", "numpy"), ("orchestrator.cli", "sdnet-orchestrate", "yaml")],
)
def test_a_package_of_another_python_on_the_path_is_one_line(
    package: str, name: str, imported: str, tmp_path: Path
) -> None:
    (tmp_path / f"{imported}.py").write_text("raise ImportError('\\nno C extension for this Python\\n...')")
    done = subprocess.run(
        [sys.executable, "-m", package, "--help"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(
        f"{name}: a package cannot be imported (no C extension for this Python), and "
    )
    assert done.stderr.endswith("which may name packages of another Python; unset it\n")


def test_filters_that_make_errors_of_warnings_are_removed_and_others_stay() -> None:
    program = (
        "import os, warnings; from sdnet.cli.imports import let_warnings_raise_nothing; "
        "let_warnings_raise_nothing(); warnings.warn('old', DeprecationWarning); "
        "warnings.warn('new', UserWarning); print(os.environ['PYTHONWARNINGS'])"
    )
    filters = "ignore::UserWarning,error::DeprecationWarning,e"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, "PYTHONWARNINGS": filters}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "ignore::UserWarning\n") and "new" not in done.stderr


@pytest.mark.parametrize("code", [errno.EFBIG, errno.EMFILE, errno.ENAMETOOLONG, errno.ENOTCONN])
def test_a_file_that_cannot_be_used_ends_a_command_in_one_line_with_its_name(
    code, monkeypatch, capfd
) -> None:
    def command(standalone_mode: bool) -> None:
        raise OSError(code, os.strerror(code), "/runs/j/x")

    monkeypatch.setattr(sys, "argv", ["sdnet-orchestrate", "plan"])
    assert run_to_exit_code(command) == 1
    expected = f"/runs/j/x: {os.strerror(code)}; look at it and its disk, and run this again"
    assert capfd.readouterr() == ("", f"sdnet-orchestrate: {expected}\n")


def test_a_pipe_that_does_not_block_gets_every_byte() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    script = (
        "from sdnet.cli.streams import standard_streams\n"
        "with standard_streams(): print('x' * 300_000, flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=writing):
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            assert pipe.read() == b"x" * 300_000 + b"\n"
