"""The one line that `sdnet` prints when it refuses input."""

import sys

import pytest

from sdnet.cli.program import main


def refusal(arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["sdnet", *arguments.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert ended.value.code == 2 and printed.err.count("\n") == 1
    return printed.err
