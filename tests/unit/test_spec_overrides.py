"""`--set` gives a key the value that the shell passed, or is refused."""

from pathlib import Path

import pytest

from orchestrator.job.spec.job_spec import load_spec
from sdnet.errors import InputError


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text("name: a\ncluster: {hosts: [{address: h, devices: {0: 192.168.1.8}}]}\n")
    return path


def test_an_override_without_a_value_says_how_to_write_one(job: Path) -> None:
    with pytest.raises(InputError, match="--set train.epochs=5"):
        load_spec(job, ("train.epochs",))


def test_an_override_below_a_plain_value_is_refused(job: Path) -> None:
    with pytest.raises(InputError, match="--set name.x: name contains a plain value, not keys"):
        load_spec(job, ("name.x=1",))


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("data.images=/data/2026-01-31", "/data/2026-01-31"),
        ("data.images=  '/a b'  ", "/a b"),
        ("data.images=@scratch", "@scratch"),
        ("data.images=/a: b: c", "/a: b: c"),
        ("data.images=[a", "[a"),
        ("data.images=/data/\udcd6\udcd0", "/data/\\xd6\\xd0"),
    ],
)
def test_the_text_of_an_override_is_what_the_shell_gave(job: Path, override: str, value: str) -> None:
    assert load_spec(job, (override,)).data.images == value


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ("data.images=",),
            "--set: data.images has no value; give one, or leave the key out for synthetic pairs",
        ),
        (
            ("data.images=/x/a: b",),
            """data.images is {"/x/a": "b"}; it must be text: put it in quotes, as --set 'data.images="/x/a: b"'""",
        ),
        (("data.images=[x]",), """["x"]; it must be text: put it in quotes, as --set 'data.images="[x]"'"""),
        (
            ("data.split.train_scenes.0=x",),
            "it must be a list, and --set replaces a whole one: --set 'data.split.train_scenes=[...]'",
        ),
        ((" train.epochs=3",), '--set " train.epochs=3" has a space in its key; write "train.epochs" before'),
        (("train.epochs =3",), '--set "train.epochs =3" has a space in its key; write "train.epochs" before'),
        (
            ("data.images=/a #2",),
            '--set data.images is "/a #2"; YAML takes `#` for a comment: put the value in',
        ),
        (
            ("data.images=#2",),
            '--set data.images is "#2"; YAML takes `#` for a comment: put the value in quotes',
        ),
        (
            ("data.images=&x /a",),
            '--set data.images is "&x /a"; YAML takes `&` for the name of an anchor: put the value in quotes',
        ),
        (
            ("data.images=/a\u3000",),
            '--set: data.images is "/a\\u3000"; remove the space around it',
        ),
        (("name=\ufeffb",), '--set: name is "\\ufeffb", with the invisible character U+FEFF; remove it'),
        (("train.epochs=1\n---\n2",), "--set train.epochs begins a second document"),
        (("data={images: a, images: b}",), "--set data: images is given twice"),
        (
            ("train.epochs=5", "train={recipe: demo}"),
            "--set train replaces --set train.epochs; give",
        ),
        (
            ("cluster.hosts.0.address=x",),
            "--set cluster.hosts.0.address: cluster.hosts contains a list",
        ),
        (("..=1",), "has no key=value; write it like --set train.epochs=5"),
        ((".".join("a" * 5000) + "=1",), "--set a.a.a... has 5000 parts; no key of a job has so many"),
    ],
)
def test_an_override_that_loses_something_is_refused(
    job: Path, overrides: tuple[str, ...], said: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_spec(job, overrides)
    assert said in str(caught.value)


def test_a_key_given_again_in_an_override_takes_the_last(job: Path) -> None:
    assert load_spec(job, ("train.epochs=5", "train.epochs=6")).train.epochs == 6
