"""Work in a child process: its result, its error or its death is known, and its end prints nothing."""

import subprocess
import sys


def test_what_a_child_returns_raises_or_dies_of_is_known_to_its_parent() -> None:
    script = """
import os
from orchestrator.errors import OrchestratorError
from orchestrator.cli.interruption import in_a_child
from sdnet.errors import InputError
print(in_a_child(lambda: 3))
def refuse(): raise InputError("no such thing")
for work in (refuse, lambda: os._exit(7), lambda: os.kill(os.getpid(), 9)):
    try:
        in_a_child(work)
    except (InputError, OrchestratorError) as error:
        print(error)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.stderr == "" and ended.stdout.splitlines() == [
        "3",
        "no such thing",
        "the process that did the work ended with exit code 7; look at the host's memory, and run it again",
        "the process that did the work ended with signal 9; look at the host's memory, and run it again",
    ]


def test_a_child_that_has_answered_is_ended_silently() -> None:
    # With a thread, as MindSpore has: it may take the signal, whatever the main thread masks.
    refused_often = """
import threading
from orchestrator.cli.interruption import in_a_child
from sdnet.cli.interruption import interruptible
from sdnet.errors import InputError
def work():
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    raise InputError("x")
with interruptible():
    for _ in range(50):
        try:
            in_a_child(work)
        except InputError as error:
            assert str(error) == "x"
"""
    ended = subprocess.run([sys.executable, "-c", refused_often], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
