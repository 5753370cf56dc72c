"""Wrong arguments of both programs end in one line with the help to read; lost output fails no result on disk."""

import subprocess
import sys
from pathlib import Path

import pytest

from sdnet.config import SyntheticConfig
from sdnet.preparation.synthetic import make_tree

PROGRAMS = {"sdnet": "sdnet", "sdnet-orchestrate": "orchestrator.cli"}


def run(program: str, *arguments: str, **streams: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", PROGRAMS[program], *arguments]
    return subprocess.run(command, text=True, **{"stderr": subprocess.PIPE, **streams})  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("program", "arguments", "said"),
    [
        ("sdnet", ["train", "--epochs", "1e3"], "Invalid value for '--epochs'"),
        ("sdnet", ["train"], "Missing option '--data'"),
        ("sdnet", ["trian"], "No such command 'trian'. Did you mean 'train'?"),
        ("sdnet-orchestrate", ["plan"], "Missing argument 'CLUSTER_YAML'"),
        ("sdnet-orchestrate", ["launch", "a.yaml", "--seet", "b=1"], "No such option: --seet"),
        (
            "sdnet-orchestrate",
            ["rank-table", "build", "--soc", "910B4"],
            "Invalid value for '--soc': '910B4'; that chip is of the family 910b: write 910b; see",
        ),
        (
            "sdnet-orchestrate",
            ["rank-table", "merge", "a.json", "--soc", "x"],
            "Invalid value for '--soc': 'x'; it must be '910a', '910b' or 'a3'; see",
        ),
        ("sdnet-orchestrate", ["rank-table", "shw"], "No such command 'shw'. Did you mean 'show'?"),
    ],
)
def test_wrong_arguments_are_one_line_with_the_help_to_read(
    program: str, arguments: list[str], said: str
) -> None:
    done = run(program, *arguments, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr and "; see `" in done.stderr and done.stderr.endswith(" --help`\n")


@pytest.mark.parametrize("program", list(PROGRAMS))
def test_without_arguments_the_help_is_printed(program: str) -> None:
    done = run(program, stdout=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (2, "") and "Usage:" in done.stdout


@pytest.fixture
def preparing(tmp_path: Path) -> list[str]:
    make_tree(tmp_path / "images", SyntheticConfig(pairs=6, scenes=4))
    return ["prepare", "--images", str(tmp_path / "images"), "--out", str(tmp_path / "out")]


def test_a_full_disk_behind_standard_output_does_not_fail_prepared_data(
    preparing: list[str], tmp_path: Path
) -> None:
    with Path("/dev/full").open("wb") as full:
        done = run("sdnet", *preparing, stdout=full)
    assert done.returncode == 0 and (tmp_path / "out/train.npz").is_file()
    assert done.stderr == "sdnet: standard output could not be written (No space left on device)\n"


def test_a_closed_pipe_does_not_fail_prepared_data(preparing: list[str]) -> None:
    with subprocess.Popen(["true"], stdin=subprocess.PIPE) as reader:
        reader.wait()
        done = run("sdnet", *preparing, stdout=reader.stdin)
    assert (done.returncode, done.stderr) == (0, "")
