"""`sdnet`: the scenes that are named are split so; wrong input is one line and exit code 2."""

import json
import sys
from pathlib import Path

import pytest

from sdnet.__main__ import main
from sdnet.config import SyntheticConfig
from sdnet.data.sen12 import find_pairs
from sdnet.data.synthetic import make_tree


def test_prepare_trains_and_tests_on_the_scenes_that_are_named(tmp_path: Path, monkeypatch) -> None:
    make_tree(tmp_path / "images", SyntheticConfig(pairs=6, scenes=4))
    scenes = sorted({pair.scene for pair in find_pairs(tmp_path / "images").pairs})
    named = ["--train-scenes", scenes[0], "--train-scenes", scenes[1], "--test-scenes", scenes[2]]
    arguments = ["prepare", "--images", str(tmp_path / "images"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["sdnet", *arguments, *named, "--test-scenes", scenes[3]])
    with pytest.raises(SystemExit, match="0"):
        main()
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["scenes"] == {"train": scenes[:2], "test": scenes[2:]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train --data {tmp} --out {tmp}/run --recipe grand", "recipe grand is not known"),
        ("train --data {tmp} --out {tmp}/run --batch 1", "batch is 1"),
        ("train --data {tmp} --out {tmp}/run", "train.npz is not there"),
        ("eval --checkpoint {tmp}/x.ckpt --data {tmp}/test.npz", "test.npz is not there"),
        ("export --checkpoint {tmp}/x.ckpt --out {tmp}/x.mindir", "x.ckpt is not there"),
        ("export --checkpoint {tmp}/x.ckpt --out {tmp}/x.air --format air", "needs an Ascend host"),
        (
            "export --checkpoint {tmp}/x.ckpt --out {tmp}/no/x.mindir",
            "x.mindir cannot be written (No such file",
        ),
        ("export --checkpoint {tmp}/x.ckpt --out {tmp}/folder.mindir", "cannot be written (Is a directory)"),
        ("prepare --images {tmp} --out {tmp}/out", "{tmp}"),
        ("prepare --out {tmp}/file/out", "folder {tmp}/file/out cannot be written (Not a directory)"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(arguments, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "folder.mindir").mkdir()
    monkeypatch.setattr(sys, "argv", ["sdnet", *arguments.format(tmp=tmp_path).split()])
    with pytest.raises(SystemExit) as caught:
        main()
    printed = capsys.readouterr()
    assert caught.value.code == 2
    assert message.format(tmp=tmp_path) in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
