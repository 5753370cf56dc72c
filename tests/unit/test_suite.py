"""The rules of tests/conftest.py work: what it forbids fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
SKIPS = """
import pytest

@pytest.mark.npu
def test_npu():
    pytest.skip("no device")

@pytest.mark.xfail(reason="known")
def test_known():
    raise ValueError

def test_skips():
    pytest.skip("too lazy")
"""
LEAVES_A_FILE = """
import tempfile

def test_leaves():
    tempfile.mkstemp(prefix="forgotten")
"""
LEAVES_A_RANK = """
import os, subprocess, sys
import conftest, pytest

conftest._GRACE_S = 0.1
children = []

@pytest.mark.integration
def test_leaves():
    environment = {**os.environ, "SDNET_RUN": "/runs/mine"}
    command = [sys.executable, "-c", "input()"]
    children.append(subprocess.Popen(command, env=environment, stdin=subprocess.PIPE))

def test_tidies():
    children[0].communicate()
"""


def outcome(tmp_path: Path, test: str, forbid_skips: str) -> str:
    """The outcome of the test under the suite's conftest.py."""
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "test_it.py").write_text(test, encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-ra",
            "-o",
            "markers=npu\nintegration",
            "--rootdir",
            str(tmp_path),
            str(tmp_path),
        ],
        env={**os.environ, "SDNET_FORBID_SKIPS": forbid_skips},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout


@pytest.mark.parametrize(
    ("forbid_skips", "tally"), [("1", "1 failed, 1 skipped, 1 xfailed"), ("0", "2 skipped, 1 xfailed")]
)
def test_a_skip_fails_where_skips_are_forbidden_unless_it_needs_a_device(
    tmp_path: Path, forbid_skips: str, tally: str
) -> None:
    said = outcome(tmp_path, SKIPS, forbid_skips)
    assert tally in said
    assert ("SDNET_FORBID_SKIPS=1 and this was skipped: Skipped: too lazy" in said) == (forbid_skips == "1")


def test_a_temporary_file_that_a_test_forgets_fails_the_session(tmp_path: Path) -> None:
    said = outcome(tmp_path, LEAVES_A_FILE, "0")
    assert "1 passed, 1 error" in said
    assert "left behind by the tests: " in said and "/forgotten" in said


def test_a_rank_that_outlives_its_test_fails_it(tmp_path: Path) -> None:
    said = outcome(tmp_path, LEAVES_A_RANK, "0")
    assert "2 passed, 1 error" in said and "outlive the test: " in said
