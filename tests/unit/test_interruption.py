"""A signal ends a command as Ctrl-C does: in one line, with the exit code that shells expect."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sdnet.cli.interruption import signals_admitted_beside_mindspore

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGUSR1, 138)]

# Waits for a signal that may also have come just before; `signal.pause` would then wait for ever.
_WAITING = """
import os, signal
woken, wakes = os.pipe()
os.set_blocking(wakes, False)
signal.set_wakeup_fd(wakes)
def wait_for_a_signal():
    os.read(woken, 1)
"""

# Prints that it waits, then waits for the signal; prints the exception of the block with its exit code.
_WAITS = (
    _WAITING
    + """
from sdnet.cli.interruption import exit_code_of, interruptible
try:
    with interruptible():
        print("waits", flush=True)
        wait_for_a_signal()
except KeyboardInterrupt as interruption:
    print(exit_code_of(interruption), flush=True)
"""
)

# As Ray starts: it takes the signal for itself, which comes while it does so and while another thread lives.
_STARTS_RAY = """
import os, signal, threading
from orchestrator.threads import start_without_signals
start_without_signals(threading.Thread(target=threading.Event().wait, daemon=True))
from sdnet.cli.interruption import exit_code_of, interruptible
from orchestrator.ray_cluster.signal_handlers import keeping_signal_handlers
try:
    with interruptible():
        with keeping_signal_handlers():
            signal.signal(signal.SIGNUM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGNUM)
            print("started", flush=True)
        print("not reached")
except KeyboardInterrupt as interruption:
    print(exit_code_of(interruption), flush=True)
"""

# The signal comes while the modules of the command line are imported.
_IMPORTS_ITSELF = """
import os, runpy, signal, sys
from sdnet.cli import interruption
hold = interruption.hold_signals
def hold_signals():
    hold()
    os.kill(os.getpid(), signal.SIGNUM)
interruption.hold_signals = hold_signals
sys.argv = ["program", "--help"]
runpy.run_module("PACKAGE", run_name="__main__")
"""

# A second Ctrl-C, when the first one was caught and the line is about to be printed.
_AGAIN = """
import os, signal, sys
from orchestrator.cli import endings
from sdnet.cli import interruption
def interrupt(**options):
    os.kill(os.getpid(), signal.SIGINT)
def interrupt_first(module, name):
    prints = getattr(module, name)
    def interrupts(*arguments):
        setattr(module, name, prints)
        interrupt()
    setattr(module, name, interrupts)
interrupt_first(interruption, "leave_interrupted")
interrupt_first(endings, "tell")
sys.argv = ["sdnet-orchestrate", "COMMAND"]
sys.exit(endings.run_to_exit_code(interrupt))
"""

# The command is done, and the interpreter exits, which takes a moment with MindSpore or Ray.
_EXITS = """
import atexit, os, runpy, signal, sys
atexit.register(os.kill, os.getpid(), signal.SIGINT)
sys.argv = ["program", "--help"]
runpy.run_module("PACKAGE", run_name="__main__")
"""

# As a group that saves after the first signal: later ones must not end that.
_SAVES = """
import os, signal
from sdnet.cli.interruption import interruptible
with interruptible():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        print("saved")
"""

# As the import of MindSpore, which prints and raises something else for an exception inside its C++ code.
_IMPORTS = (
    _WAITING
    + """
import sys
from orchestrator import cli
from orchestrator.cli.commands import plan as plan_command
from sdnet.cli import program as sdnet_command
def import_mindspore(*arguments):
    os.write(1, b"waits\\n")
    try:
        wait_for_a_signal()
    except KeyboardInterrupt:
        os.write(2, b"pages of C++ text")
        raise ImportError("initialization failed") from None
sdnet_command._use_graphs = plan_command.read_job = import_mindspore
programs = {
    "sdnet": (sdnet_command.main, ["eval", "--checkpoint", "x", "--data", "y"]),
    "sdnet-orchestrate": (cli.main, ["plan", "job.yaml"]),
}
main, arguments = programs["PROGRAM"]
sys.argv = ["PROGRAM", *arguments]
main()
"""
)

# A command with a network that MindSpore compiles again and again: each time it takes SIGINT for itself.
_COMPILES = """
import sys, types
from sdnet.cli.interruption import hold_signals
hold_signals()  # as `main` does before it imports a library that starts threads
from orchestrator import cli
from sdnet import __main__ as sdnet
from sdnet.cli import program

def compile_for_ever(*arguments):
    import numpy as np
    import mindspore as ms
    ms.set_context(mode=ms.GRAPH_MODE)
    class Cell(ms.nn.Cell):
        def construct(self, x):
            return x * 2 + 1
    size = 1
    while True:
        Cell()(ms.Tensor(np.ones(size, np.float32))).asnumpy()
        print(size, flush=True)
        size += 1

sys.modules["sdnet.export"] = types.SimpleNamespace(export_checkpoint=compile_for_ever)
program._use_graphs = compile_for_ever
main, arguments = {
    "sdnet": (sdnet.main, ["eval", "--checkpoint", "x", "--data", "y"]),
    "sdnet-orchestrate": (cli.main, ["export", "--checkpoint", "x", "--out", "y.mindir"]),
}["PROGRAM"]
sys.argv = ["PROGRAM", *arguments]
main()
"""


def started(program: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(("signum", "code"), SIGNALS)
def test_each_ending_signal_interrupts_and_has_its_exit_code(signum: signal.Signals, code: int) -> None:
    with started(_WAITS) as process:
        assert process.stdout is not None and process.stdout.readline() == "waits\n"
        process.send_signal(signum)
        assert process.communicate() == (f"{code}\n", "")


def test_the_exit_code_is_that_of_the_signal_also_when_a_library_raises_an_exception_of_its_own() -> None:
    as_ray_does = _WAITS.replace("        wait_for_a_signal()", """
        try:
            wait_for_a_signal()
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None
""")  # fmt: skip
    with started(as_ray_does) as process:
        assert process.stdout is not None and process.stdout.readline() == "waits\n"
        process.send_signal(signal.SIGTERM)
        assert process.communicate() == ("143\n", "")


def test_a_signal_that_was_ignored_stays_ignored_as_nohup_wants() -> None:
    with started("import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + _WAITS) as process:
        assert process.stdout is not None and process.stdout.readline() == "waits\n"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.communicate() == ("143\n", "")


@pytest.mark.parametrize(("signum", "code"), SIGNALS)
def test_a_signal_while_ray_starts_waits_for_our_handler(signum: signal.Signals, code: int) -> None:
    with started(_STARTS_RAY.replace("SIGNUM", signum.name)) as process:
        assert process.communicate() == (f"started\n{code}\n", "")


@pytest.mark.parametrize(("signum", "code"), SIGNALS)
@pytest.mark.parametrize(
    ("package", "program"), [("sdnet", "sdnet"), ("orchestrator.cli", "sdnet-orchestrate")]
)
def test_a_signal_while_the_command_line_is_imported_is_one_line(
    package: str, program: str, signum: signal.Signals, code: int
) -> None:
    with started(_IMPORTS_ITSELF.replace("SIGNUM", signum.name).replace("PACKAGE", package)) as process:
        assert process.communicate() == ("", f"{program}: interrupted\n")
    assert process.returncode == code


@pytest.mark.parametrize("command", ["plan", "launch"])
def test_a_second_ctrl_c_just_after_the_first_is_one_line_too(command: str) -> None:
    with started(_AGAIN.replace("COMMAND", command)) as process:
        assert process.communicate() == ("", "sdnet-orchestrate: interrupted\n")
    assert process.returncode == 130


@pytest.mark.parametrize("package", ["sdnet", "orchestrator.cli"])
def test_a_signal_while_the_interpreter_exits_prints_nothing(package: str) -> None:
    with started(_EXITS.replace("PACKAGE", package)) as process:
        assert process.communicate()[1] == ""
    assert process.returncode == -signal.SIGINT


def test_a_command_leaves_no_signal_blocked() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with signals_admitted_beside_mindspore():
        inside = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert signal.SIGINT in inside and signal.SIGTERM not in inside
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_what_the_first_signal_began_is_not_ended_by_the_next_ones() -> None:
    with started(_SAVES) as process:
        assert process.communicate() == ("saved\n", "")
    assert process.returncode == 0


@pytest.mark.parametrize("program", ["sdnet", "sdnet-orchestrate"])
def test_a_library_that_a_signal_interrupts_prints_nothing_after_it(program: str) -> None:
    with started(_IMPORTS.replace("PROGRAM", program)) as process:
        assert process.stdout is not None and process.stdout.readline() == "waits\n"
        process.send_signal(signal.SIGTERM)
        assert process.communicate() == ("", f"{program}: interrupted\n")
    assert process.returncode == 143


@pytest.mark.parametrize("program", ["sdnet", "sdnet-orchestrate"])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_while_mindspore_compiles_ends_a_command_in_one_line(
    tmp_path: Path, signum: signal.Signals, program: str
) -> None:
    # A file, because MindSpore reads the source of what it compiles.
    script = tmp_path / "compiles.py"
    script.write_text(_COMPILES.replace("PROGRAM", program))
    with started(
        f"import os, runpy; os.chdir({str(tmp_path)!r}); runpy.run_path({str(script)!r})"
    ) as process:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "5":
            assert process.poll() is None, process.communicate()[1]
        process.send_signal(signum)
        _, errors = process.communicate()
    assert [path.name for path in tmp_path.iterdir()] == ["compiles.py"]
    assert (process.returncode, errors) == (128 + signum, f"{program}: interrupted\n")
