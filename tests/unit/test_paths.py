"""A path is what the user wrote: `~` is a home directory everywhere, an impossible path is one line."""

import inspect
import os
import subprocess
import sys
import typing
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

import sdnet.cli.program
from orchestrator.cli.program import app
from sdnet.cli.path_option import path_option
from sdnet.errors import InputError
from sdnet.paths import full_path, printable_path, user_path
from tests.unit.conftest import Cli


def test_a_tilde_is_the_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/runs") == tmp_path / "runs"
    assert user_path("~root/x") == Path("/root/x")
    assert user_path("./~x") == Path("./~x")


def test_a_path_on_the_command_line_may_be_a_file_whose_name_begins_with_a_tilde(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("~x").mkdir()
    assert "~x is not a run directory" in cli("status", "~x")[2]
    assert 'RUN is "~y"; the home directory of that user is not known' in cli("status", "~y")[2]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            "rank-table merge a.json http://x/b.json --out c.json",
            'FILE... is "http://x/b.json"; that is a URL',
        ),
        ("export --checkpoint https://x/a.ckpt --out a", '--checkpoint is "https://x/a.ckpt"; that is a URL'),
        ("register a -o s3://b/c", '--out is "s3://b/c"; that is a URL'),
    ],
)
def test_a_wrong_path_is_named_with_its_option_and_as_it_was_given(cli: Cli, command: str, said: str) -> None:
    code, _, err = cli(*command.split())
    assert code == 2 and err.count("\n") == 1 and said in err


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("~nosuchuser/x", "the home directory of that user is not known here, so give the full path"),
        (
            "s3://bucket/x",
            "that is a URL: mount or download it, and give its path",
        ),
        ("file:/x", "that is a URL: mount or download it, and give its path"),
        ("C:\\runs", "that is a path of Windows: give the path on this host, as /mnt/c/runs"),
        ("a\0b", "a path cannot contain a NUL character"),
        ("/data/" + "\u4e2d" * 90, "a name in a path may have 255 bytes"),
        ("x/" * 3000, "a path may have 4095 bytes"),
    ],
)
def test_an_impossible_path_is_reported_in_one_line(text: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        user_path(text, "storage")
    said = str(caught.value)
    assert said.startswith('storage is "') and said.endswith(f"; {problem}") and len(said) < 250


def test_a_loop_of_links_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match="storage is .* it cannot be followed .* repair its symbolic links"):
        full_path(str(tmp_path / "loop" / "x"), "storage")


def test_a_deleted_current_directory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(InputError, match="storage is .*; the current directory was deleted: change to one"):
        full_path("runs", "storage")


@pytest.mark.parametrize("package", ["sdnet", "orchestrator.cli"])
def test_export_names_a_deleted_current_directory_before_mindspore_fails_on_it(
    tmp_path: Path, package: str
) -> None:
    (tmp_path / "gone").mkdir()
    code = f"""if True:
        import os, runpy, sys
        os.chdir({str(tmp_path / "gone")!r})
        os.rmdir(os.getcwd())
        sys.argv = ["program", "export", "--checkpoint", "/x.ckpt", "--out", "/x.mindir"]
        runpy.run_module({package!r}, run_name="__main__")
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert ": the current directory was deleted, and MindSpore reads its name; change to one" in done.stderr


def test_a_name_can_be_followed_where_the_locale_is_ascii(tmp_path: Path) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code = "import os; from sdnet.paths import full_path; print(os.fsencode(full_path('/x/\\u00e9')))"
    command = [sys.executable, "-c", code]
    seen = subprocess.run(command, env=os.environ | ascii_only, capture_output=True, text=True, check=True)
    assert seen.stdout == "b'/x/\\xc3\\xa9'\n"


@given(st.lists(st.sampled_from([b"a", b"\xd6\xd0", "\u4e2d".encode(), b"\xff", b"/"]), min_size=1))
def test_a_name_that_is_not_utf8_becomes_text_and_the_same_name_again(parts: list[bytes]) -> None:
    given_as = os.fsdecode(b"/" + b"".join(parts))
    text = printable_path(given_as)
    text.encode()  # any file can hold it
    assert user_path(text) == Path(given_as)


def _commands(group: typer.Typer) -> list[Callable[..., object]]:
    own = [command.callback for command in group.registered_commands if command.callback]
    return own + [command for inner in group.registered_groups if inner.typer_instance
                  for command in _commands(inner.typer_instance)]  # fmt: skip


@pytest.mark.parametrize(
    "command", [*_commands(app), *_commands(sdnet.cli.program.app)], ids=lambda command: command.__qualname__
)
def test_every_path_that_a_command_takes_may_begin_with_a_tilde(command: Callable[..., object]) -> None:
    hints = typing.get_type_hints(command, include_extras=True)
    for name in inspect.signature(command).parameters:
        kind, option = typing.get_args(hints[name])[:2]
        if Path in (kind, *typing.get_args(kind)):
            assert option.callback is path_option, name
