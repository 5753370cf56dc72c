"""Signals around Ray's real start and end."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration

# Ray's C++ code takes SIGTERM when Ray starts and resets it when Ray ends.
_SIGNALS_ITSELF_AFTER_RAY = """
import os, signal
from orchestrator.job.spec.job_spec import ClusterSpec
from orchestrator.ray_cluster.session import ray_session
from sdnet.cli.interruption import exit_code_of, interruptible
try:
    with interruptible():
        with ray_session(ClusterSpec(address="local", workers=1)):
            print("started", flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
except KeyboardInterrupt as interruption:
    print(exit_code_of(interruption))
"""


def test_sigterm_after_ray_has_ended_reaches_our_handler() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SIGNALS_ITSELF_AFTER_RAY], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "started\n143\n", "")
