"""Processes that hold a device are reported. Only leftovers of our runs, found by their mark, are killed."""

import subprocess
import sys

import psutil
import pytest

from orchestrator.ascend.inventory.npu_smi_table import parse_info
from orchestrator.engine.host.left_over import (
    RUN_VARIABLE,
    LeftOver,
    end_processes,
    holders_of,
    left_over_processes,
)
from orchestrator.process_identity import start_ticks
from tests.ascend_fakes import tools
from tests.ascend_fakes.host import describe
from tests.unprivileged import as_nobody


@pytest.fixture
def sleeper():
    """Starts a process that waits for its input to end; every one is gone after the test."""
    started = []

    def start(**environment):
        command = [sys.executable, "-S", "-c", "print(flush=True); input()"]
        process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"\n"
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_holders_of_some_devices_are_named_in_order():
    host = describe(1, devices=range(4))
    host["devices"][2]["processes"] = [[9, "python", 5], [7, "", 5]]
    host["devices"][3]["processes"] = [[8, "python", 5]]
    held = holders_of(parse_info(tools.info(host)), {0, 2})
    assert held is not None
    assert [(process.device_id, process.pid) for process in held] == [(2, 7), (2, 9)]


def test_a_version_that_lists_no_processes_gives_no_holders():
    table = tools.info(describe(1, devices=[0]))
    assert holders_of(parse_info(table[: table.index("| NPU     Chip")]), {0}) is None


def test_a_process_with_our_mark_and_no_raylet_above_it_is_left_over(sleeper):
    marked, other = sleeper(**{RUN_VARIABLE: "/runs/lost"}), sleeper()
    found = {item.pid: item.run for item in left_over_processes()}
    assert found.get(marked.pid) == "/runs/lost"
    assert other.pid not in found


def test_ending_left_overs_ends_them_and_nothing_that_took_their_id(sleeper):
    marked, other = sleeper(**{RUN_VARIABLE: "/runs/lost"}), sleeper(**{RUN_VARIABLE: "/runs/other"})
    end_processes([LeftOver(marked.pid, "python", "/runs/lost"), LeftOver(other.pid, "python", "/runs/lost")])
    assert marked.poll() is not None
    assert psutil.pid_exists(other.pid)


def test_a_process_that_took_the_id_later_is_left_alone_though_it_carries_the_mark(sleeper):
    marked = sleeper(**{RUN_VARIABLE: "/runs/lost"})
    started = start_ticks(marked.pid)
    assert started is not None
    assert end_processes([LeftOver(marked.pid, "rank 0", "/runs/lost", started - 1)]) == ()
    assert marked.poll() is None
    assert end_processes([LeftOver(marked.pid, "rank 0", "/runs/lost", started)]) == ()
    assert marked.poll() is not None


def test_an_id_that_another_user_has_now_does_not_keep_a_run_from_resuming():
    """The first process belongs to root, and no other user can read its environment."""
    started = start_ticks(1)
    assert started is not None
    left = as_nobody(
        lambda: str(
            [
                end_processes([LeftOver(1, "rank 0", "/runs/lost", noted)], patience_s=0.1)
                for noted in (None, started - 1)
            ]
        )
    )
    assert left == "[(), ()]"


def test_a_rank_that_runs_as_another_user_and_cannot_be_ended_is_named():
    """Its start time shows that it is the recorded process."""
    item = LeftOver(1, "rank 0", "/runs/lost", start_ticks(1))
    assert as_nobody(lambda: str(end_processes([item], patience_s=0.1))) == "(1,)"


def test_the_left_over_processes_of_other_users_are_passed_over():
    assert as_nobody(lambda: str([item for item in left_over_processes() if item.pid == 1])) == "[]"
