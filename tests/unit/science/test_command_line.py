"""`sdnet`: splits by the named scenes; wrong input is one line and exit code 2."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from sdnet.cli.interruption import Interrupted, interruptible
from sdnet.cli.program import main
from sdnet.config import SyntheticConfig
from sdnet.errors import InputError
from sdnet.files import alone_in, made_folder, undisturbed
from sdnet.preparation.sen12 import find_pairs
from sdnet.preparation.synthetic import make_tree
from tests.unit.science.refusals import refusal


@pytest.fixture(scope="module")
def few_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fewer pairs than `prepare` makes without `--images`."""
    images = tmp_path_factory.mktemp("few") / "images"
    make_tree(images, SyntheticConfig(pairs=6, scenes=4))
    return images


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
            "export --checkpoint {tmp}/x.ckpt --out {tmp}/x.mindir --batch 1000000000",
            "batch is 1000000000; it must be from 1 to 65536",
        ),
        (
            "export --checkpoint {tmp}/x.ckpt --out {tmp}/no/x.mindir",
            "x.mindir cannot be written (No such file",
        ),
        ("export --checkpoint {tmp}/x.ckpt --out {tmp}/folder.mindir", "cannot be written (Is a directory)"),
        ("prepare --images {tmp} --out {tmp}/out", "{tmp}"),
        ("prepare --out {tmp}/file/out", "folder {tmp}/file/out cannot be written (Not a directory)"),
        (
            "prepare {few} --out {tmp}/a",
            "{tmp}/a/train.npz is a folder, but must be a file; move it away",
        ),
        (
            "prepare {few} --out {tmp}/b",
            "{tmp}/b/shards is a file, but must be a folder; move it away",
        ),
    ],
)
def test_wrong_input_is_one_line_on_stderr_and_exit_code_2(
    arguments, message, few_images, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").touch()
    (tmp_path / "folder.mindir").mkdir()
    (tmp_path / "a/train.npz").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/shards").touch()
    monkeypatch.setattr(
        sys, "argv", ["sdnet", *arguments.format(tmp=tmp_path, few=f"--images {few_images}").split()]
    )
    with pytest.raises(SystemExit) as caught:
        main()
    printed = capsys.readouterr()
    assert caught.value.code == 2
    assert message.format(tmp=tmp_path) in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_images_that_are_refused_leave_no_folder(tmp_path, monkeypatch, capsys):
    (tmp_path / "images").mkdir()
    line = refusal(f"prepare --images {tmp_path}/images --out {tmp_path}/out", monkeypatch, capsys)
    assert "images holds no pair" in line and not (tmp_path / "out").exists()


# `prepare` up to the moment when its folder of synthetic images is there.
_PREPARES = """
import signal, sys
from sdnet.preparation import synthetic
def wait(*arguments):
    print("waits", flush=True)
    signal.pause()
synthetic.make_tree = wait
from sdnet.files import alone_in
from sdnet.cli.program import main
sys.argv = ["sdnet", "prepare", "--out", sys.argv[1]]
main()
"""


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_prepare_in_one_line_and_leaves_no_images(signum, code, tmp_path):
    command = [sys.executable, "-c", _PREPARES, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "waits\n"
        process.send_signal(signum)
        assert process.communicate() == ("", "sdnet: interrupted\n")
    assert process.returncode == code
    assert not (tmp_path / "out").exists()


def test_a_limit_on_the_size_of_files_names_the_file_that_reached_it(tmp_path):
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024)); "
    program = f"{limited}from sdnet.cli.program import main; main()"
    command = [sys.executable, "-c", program, "prepare", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert re.match(
        rf"failed: {tmp_path}/out/\S+\.png: File too large; look at the disk and at `ulimit -a`", done.stderr
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("found", [True, False])
def test_a_failure_removes_only_empty_folders_that_it_made(tmp_path, found):
    if found:
        (tmp_path / "a").mkdir()
    with pytest.raises(KeyboardInterrupt), made_folder(tmp_path / "a/b/c", tmp_path / "a/b/c/d"):
        (tmp_path / "a/b/c/d").mkdir()
        raise KeyboardInterrupt
    assert (tmp_path / "a").exists() == found and not (tmp_path / "a/b").exists()
    with pytest.raises(KeyboardInterrupt), made_folder(tmp_path / "a/b"):
        (tmp_path / "a/b/kept").touch()
        raise KeyboardInterrupt
    assert (tmp_path / "a/b/kept").exists()


def test_a_failure_leaves_a_folder_in_which_another_process_works(tmp_path):
    with (
        ExitStack() as other,
        pytest.raises(InputError, match="another process"),
        made_folder(tmp_path / "a"),
    ):
        other.enter_context(alone_in(tmp_path / "a"))  # a lock belongs to an open file, not to a process
        with alone_in(tmp_path / "a"):
            pytest.fail("two processes were let in")
    assert (tmp_path / "a").is_dir()


def test_a_second_signal_does_not_stop_the_cleaning(tmp_path):
    done = []
    with pytest.raises(Interrupted), interruptible():
        with undisturbed():
            signal.raise_signal(signal.SIGINT)
            done.append("cleaned")
        done.append("never")
    assert done == ["cleaned"]


def test_images_that_a_killed_prepare_left_are_removed(tmp_path, monkeypatch):
    make_tree(tmp_path / "images", SyntheticConfig(pairs=6, scenes=4))
    (tmp_path / "out/.sdnet-synthetic-x1/tree").mkdir(parents=True)
    arguments = ["prepare", "--images", str(tmp_path / "images"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["sdnet", *arguments])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert not list((tmp_path / "out").glob(".*"))


def test_prepare_does_not_work_in_a_folder_where_another_process_does(tmp_path, monkeypatch, capsys):
    with alone_in(tmp_path):
        line = refusal(f"prepare --out {tmp_path}", monkeypatch, capsys)
    assert f"another process is working in {tmp_path}; wait until it ends" in line
    assert not list(tmp_path.iterdir())
    with alone_in(tmp_path):
        pass  # the end of a process gives the folder free


def test_a_path_that_fails_only_at_a_late_write_is_reported_in_one_line_too(tmp_path, monkeypatch, capsys):
    make_tree(tmp_path / "images", SyntheticConfig(pairs=6, scenes=4))
    in_the_way = tmp_path / "out/shards/train-00000.npz"
    in_the_way.mkdir(parents=True)
    arguments = ["prepare", "--images", str(tmp_path / "images"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["sdnet", *arguments])
    with pytest.raises(SystemExit, match="2"):
        main()
    remedy = "move away what is there, or give access to it"
    assert capsys.readouterr().err == f"error: {in_the_way} cannot be used (Is a directory); {remedy}\n"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "--layout sen13",
            "layout is 'sen13'; it must be one of auto, sen12, flat,",
        ),
        ("--scene-pattern (", 'scene_pattern is "("; it must be a regular expression with one group'),
        ("--scene-pattern (?<a>.+)", "(.+)_\\d+ (unknown extension ?<a)"),
        ("--scene-pattern (.)(.)", "(it has 2 groups)"),
        (
            "--scene-pattern ([[:alpha:]]+).*",
            "(Python does not know [:alpha:]; write the characters, as A-Za-z)",
        ),
        ("--max-pixels 0", "max_pixels is 0; it must be at least 1"),
        ("--max-bad-images nan", "max_bad_images is .nan; it must be from 0 to 1"),
        ("--max-bad-images -1", "max_bad_images is -1.0; it must be from 0 to 1"),
    ],
)
def test_wrong_options_of_prepare_are_refused(option, message, tmp_path, monkeypatch, capsys):
    line = refusal(f"prepare --images {tmp_path} --out {tmp_path}/out {option}", monkeypatch, capsys)
    assert message in line


def test_prepare_names_an_image_that_it_skipped(tmp_path, monkeypatch, capsys):
    make_tree(tmp_path / "images", SyntheticConfig(pairs=6, scenes=4))
    bad = sorted(tmp_path.glob("images/**/*.png"))[0]
    bad.write_bytes(b"")
    arguments = ["prepare", "--images", str(tmp_path / "images"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["sdnet", *arguments, "--max-bad-images", "0.2"])
    with pytest.raises(SystemExit, match="0"):
        main()
    name = bad.relative_to(tmp_path / "images").as_posix()
    note = f"note: 1 image(s) cannot be used and are left out: {name} is empty\n"
    assert note in capsys.readouterr().err


def test_prepare_says_that_its_pairs_are_synthetic(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sdnet", "prepare", "--out", str(tmp_path / "out"), "--per-pair", "1"])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert "test patches of synthetic pairs in " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "--images", "", "--out", "x"], "--images is empty; give a value, or leave it out"),
        (["prepare", "--images=", "--out", "x"], "--images is empty; give a value, or leave it out"),
        (
            ["prepare", "--images", "x", ""],
            "the argument after x is empty; give a value, or leave it out",
        ),
    ],
)
def test_an_unset_variable_of_the_shell_is_not_the_current_directory(
    arguments, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sdnet", *arguments])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err == f"error: {message}\n"


def test_a_name_with_a_line_end_stays_on_its_line(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "a\n\x1b[31mb"
    monkeypatch.setattr(
        sys, "argv", ["sdnet", "prepare", "--images", str(folder), "--out", str(tmp_path / "x")]
    )
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "/a\\n\\x1b[31mb is not a folder" in capsys.readouterr().err.removesuffix("\n")


def test_a_name_that_the_encoding_lacks_is_printed_with_escapes(few_images, tmp_path):
    folder = tmp_path / "\u4e2d"
    ended = subprocess.run(
        [sys.executable, "-m", "sdnet", "prepare", "--images", str(few_images), "--out", str(folder)],
        env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout.endswith("/\\u4e2d\n")) == (0, True), ended.stderr


def test_a_changed_pixel_is_not_evaluated(tmp_path, monkeypatch, capsys):
    data = tmp_path / "test.npz"
    np.savez(data, np.zeros((2, 64, 128), np.uint8), np.arange(2))
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    line = refusal(f"eval --checkpoint {tmp_path}/x.ckpt --data {data}", monkeypatch, capsys)
    assert "test.npz is corrupt: arr_0.npy does not match its CRC-32" in line


def test_black_images_are_not_evaluated(tmp_path, monkeypatch, capsys):
    data = tmp_path / "test.npz"
    np.savez(data, np.zeros((2, 64, 128), np.uint8), np.arange(2))
    line = refusal(f"eval --checkpoint {tmp_path}/x.ckpt --data {data}", monkeypatch, capsys)
    assert f"{data}: the two halves of all 2 pairs are equal; put optical into" in line


@pytest.mark.parametrize("option", [("--layout", "flat"), ("--scene-pattern", "(.)")])
def test_options_that_describe_images_are_refused_without_images(option, tmp_path, monkeypatch, capsys):
    line = refusal(f"prepare --out {tmp_path}/out {' '.join(option)}", monkeypatch, capsys)
    assert line == f"error: {option[0]} describes images, and there are none; give --images, or remove it\n"
