"""`sdnet`: wrong input is one line and exit code 2."""

import sys

import pytest

from sdnet.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train --data {tmp} --out {tmp}/run --recipe grand", "recipe grand is not known"),
        ("train --data {tmp} --out {tmp}/run --batch 1", "batch is 1"),
        ("train --data {tmp} --out {tmp}/run", "train.npz is not there"),
        ("eval --checkpoint {tmp}/x.ckpt --data {tmp}/test.npz", "test.npz is not there"),
        ("export --checkpoint {tmp}/x.ckpt --out {tmp}/x.mindir", "x.ckpt is not there"),
        ("export --checkpoint {tmp}/x.ckpt --out {tmp}/x.air --format air", "needs an Ascend host"),
        ("prepare --images {tmp} --out {tmp}/out", "{tmp}"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sdnet", *arguments.format(tmp=tmp_path).split()])
    with pytest.raises(SystemExit) as caught:
        main()
    printed = capsys.readouterr()
    assert caught.value.code == 2
    assert message.format(tmp=tmp_path) in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
