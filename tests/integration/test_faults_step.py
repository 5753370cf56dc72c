"""What goes wrong inside a rank's process, for real: a bug in the step, memory that runs out."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.run_directory import RunDirectory
from tests.integration.conftest import running_node
from tests.integration.jobs import job_file, launch, pid_of, succeeded, weights
from tests.integration.ray_node import RayCluster
from tests.launching import events_of, saved, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.soak, pytest.mark.timeout(300)]

# `launch`, with a step of the test's own in every rank: the third one of a process raises.
BUGGY = """
import sys
from orchestrator.ray_session import prepare_environment
prepare_environment()
import ray
from sdnet.trainer import Trainer

right = Trainer.step

def step(self):
    if self.progress.step == 4:
        raise ArithmeticError("a bug of the test")
    right(self)
"""
