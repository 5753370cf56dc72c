"""Ending a group that stands still: what cannot be told does not keep a rank alive, and is said."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.ascend.fence import RUN_VARIABLE
from orchestrator.every_host import Answer
from orchestrator.run_directory import RunDirectory
from orchestrator.training import standstill
from orchestrator.training.standstill import Ended, RankProcess, end_ranks

SAYS_THAT_IT_RUNS = "import time; print('up', flush=True); time.sleep(600)"


@pytest.fixture
def rank(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process with the mark of the run in `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", SAYS_THAT_IT_RUNS],
        env={RUN_VARIABLE: str(tmp_path)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process answers for host `here`; host `mute` gives an error; there is no other."""

    def ask(function, timeout_s):
        told = function("here")
        return (Answer("here", told, "", 0.0, 0.0), Answer("mute", None, "no answer within 40 s", 0.0, 0.0))

    monkeypatch.setattr(standstill, "ask_every_host", ask)


@pytest.mark.usefixtures("answered")
def test_a_rank_whose_stacks_cannot_be_written_is_ended_all_the_same(tmp_path, rank) -> None:
    stacks = tmp_path / "stacks"
    stacks.touch()  # where the directory should be
    [ended] = end_ranks({0: RankProcess("here", rank.pid)}, RunDirectory(tmp_path), stacks)
    # A child that nobody has reaped yet has ended all the same.
    assert ended.gone and (not psutil.pid_exists(rank.pid) or psutil.Process(rank.pid).status() == "zombie")
    assert ended.stacks == "" and "stacks" in ended.problem


@pytest.mark.usefixtures("answered")
def test_a_process_that_is_not_of_the_run_is_left_alone(tmp_path, rank) -> None:
    [ended] = end_ranks({3: RankProcess("here", rank.pid)}, RunDirectory(tmp_path / "other"), tmp_path)
    assert rank.poll() is None
    assert (ended.rank, ended.gone) == (3, True)  # the rank has ended, and its id went to another


@pytest.mark.usefixtures("answered")
def test_ranks_of_hosts_that_do_not_answer_are_named_with_the_reason(tmp_path) -> None:
    ranks = {1: RankProcess("lost", 1), 0: RankProcess("mute", 1)}
    assert end_ranks(ranks, RunDirectory(tmp_path), tmp_path) == (
        Ended(0, "", "no answer within 40 s", gone=False),
        Ended(1, "", "host lost is not in the Ray cluster any more", gone=False),
    )
