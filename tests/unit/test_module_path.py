"""Another process of ours imports what this one does, although the current directory holds modules of that name."""

import subprocess
from pathlib import Path

import pytest

from orchestrator.module_path import python_module


@pytest.mark.parametrize("foreign", ["orchestrator/__init__.py", "sdnet/__init__.py", "typer.py", "yaml.py"])
def test_a_module_in_the_current_directory_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign: str
) -> None:
    file = tmp_path / foreign
    file.parent.mkdir(exist_ok=True)
    file.write_text("raise SystemExit('a foreign module was imported')")
    monkeypatch.chdir(tmp_path)
    command = [*python_module("orchestrator.cli"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_in_the_checkout_that_this_process_imports_from_the_current_directory_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    assert python_module("orchestrator.cli", "python") == ["python", "-m", "orchestrator.cli"]
