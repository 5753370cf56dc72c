"""Processes that start together pin themselves to CPUs of their own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

# Ranks of other tests may be pinned at the same time: only the processes of this test count.
CLAIMS_ONE = """
import os, sys
import psutil
psutil.process_iter = lambda: psutil.Process(os.getppid()).children()
from orchestrator.engine.rank.cpus import claim_cpus
print(*claim_cpus(1), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def claim_one() -> Iterator[Callable[[], int]]:
    """Starts a process that pins itself to one CPU until the test ends, and prints which."""
    with ExitStack() as holders:

        def start() -> int:
            process = holders.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", CLAIMS_ONE],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )  # fmt: skip
            )
            assert process.stdout is not None
            return int(process.stdout.readline())

        yield start


def test_processes_that_claim_at_the_same_time_get_cpus_of_their_own(claim_one: Callable[[], int]) -> None:
    mine = os.sched_getaffinity(0)
    with ThreadPoolExecutor(len(mine)) as starters:
        claims = [starters.submit(claim_one) for _ in mine]
    assert {claim.result() for claim in claims} == mine
