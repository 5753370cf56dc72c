"""Whatever the value of a key in a job file, `plan` accepts it or refuses it in one line, quickly."""

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from orchestrator.cli import main
from orchestrator.job.plan import build_plan
from orchestrator.job.spec.job_spec import JobSpec, load_spec
from sdnet.errors import InputError

Key = tuple[str | int, ...]

HOSTILE = (
    *("", "~", "null", "[]", "{}", "[[]]", "[null]", "{a: 1}", "{1: {2: 3}}", "{{ value }}", "? x", "[a, b]"),
    *("0", "-1", "1", "2", "1.5", "010", "-0", "0x1F", "1_000", "1:30", "1e3", "1e30", "-1e30"),
    *("1e-30", "1e999", ".inf", "-.inf", ".nan", "9" * 30, "9" * 299, "9" * 5000, "1000000000"),
    *("0." + "0" * 5000 + "1", "yes", "no", "off", "true", "2026-13-45", "2026-01-01", "12:30:45"),
    *("auto", "local", "ascend"),
    *('""', '" "', '"\\0"', '"\\ud800"', '"\\e[31m"', '"a\\nb"', '"\\ufeff"', "|\n  a\n  b", ">-\n  a"),
    *("${HOME}", "$HOME/x", "$(pwd)", "~nosuchuser/x", "~/x", "s3://bucket/x", "file:///x", "\u201cx\u201d"),
    *("!!int x", "!!binary aGk=", "!x y", "&a 1", "*a", "<<", "@x", "%x", "`x`", "[::1]:6379", "'[/]'", "-"),
    *("'[::1]:6379'", "'::1:6379'", "'h:99999'", "\uff12", "a" * 200_000, "\u4e2d" * 90, "x/" * 3000),
    *("[" * 3000, "{a: " * 30, "x\n  y", "x\n---\nname: b", "\t1", "# nothing", "'", '"', "]", "}", "/"),
    *("a: b", "a : b", "- a", "\x01", "[1, 2]", "[2, 1]", "[1, 1000000000]", "[1, 2, 3]", "[a, 1]"),
    *("{0: a}", "{010: a}", "{-1: a}", "{0: {}}", "{99999: a}"),
)  # fmt: skip


def keys(section: Any = JobSpec, above: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Path and type of every section and key of a job, and of the parts of a host."""
    fields: dict[str, Any] = {}
    if isinstance(section, type) and issubclass(section, BaseModel):
        fields = {name: field.annotation for name, field in section.model_fields.items()}
    elif dataclasses.is_dataclass(section):
        fields = {field.name: field.type for field in dataclasses.fields(section)}
    for name, annotation in fields.items():
        yield (*above, name), annotation
        yield from keys(annotation, (*above, name))
        for inner in get_args(annotation):
            yield from keys(inner, (*above, name, 0))


def is_number(annotation: Any) -> bool:
    return bool({int, float} & {annotation, *get_args(annotation)})


KEYS = (*(key for key, _ in keys()), ("train", "recipe"), ("cluster", "hosts", 0, "devices", "0"))
NUMBERS = tuple(key for key, annotation in keys() if is_number(annotation) and key[-1] != "devices")


def job_text(key: Key, value: str) -> str:
    """A job file that has `value` at the key, and that is valid without it."""
    lines, indent = [] if key[0] == "name" else ["name: a"], ""
    for part in key[:-1]:
        lines.append(f"{indent}-" if isinstance(part, int) else f"{indent}{part}:")
        indent += "  "
    return "\n".join([*lines, f"{indent}{key[-1]}: {value}"]) + "\n"


@pytest.fixture
def plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., None]:
    """Plans a job file and asserts that it is a plan, or one line with the name of what was wrong."""
    job = tmp_path / "cluster.yaml"
    monkeypatch.chdir(tmp_path)

    def run(text: str, *options: str, named: str = "") -> None:
        job.write_text(text, encoding="utf-8", errors="surrogatepass")
        monkeypatch.setattr(sys, "argv", ["sdnet-orchestrate", "plan", str(job), "--json", *options])
        began = time.process_time()
        with pytest.raises(SystemExit) as ended:
            main()
        seconds = time.process_time() - began
        out, err = capsys.readouterr()
        case = (text[:200], options, out[:200], err[:1000])
        assert ended.value.code in (0, None) or ended.value.code == 2, case
        if ended.value.code == 2:
            assert not out and err.startswith("sdnet-orchestrate: ") and err.count("\n") == 1, case
            assert named in err and len(err) < 1000 and len(err.splitlines()) == 1, case
            assert "it must fit:" not in err, case
        else:
            assert out and not err, case
        assert seconds < 1, (*case, seconds)

    return run


def test_the_keys_are_those_of_the_model() -> None:
    assert len(KEYS) > 55
    assert {
        ("storage",),
        ("train", "lr"),
        ("data", "split", "seed"),
        ("cluster", "hosts", 0, "address"),
    } < set(KEYS)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: ".".join(map(str, key)))
def test_each_hostile_value_at_each_key_is_a_job_or_one_line(tmp_path: Path, key: Key) -> None:
    job = tmp_path / "cluster.yaml"
    for value in HOSTILE:
        job.write_text(job_text(key, value))
        began = time.process_time()
        try:
            build_plan(load_spec(job))
        except InputError as error:
            said = str(error)
            assert len(said.splitlines()) == 1 and len(said) < 1000 and "it must fit:" not in said, value[:50]
        assert time.process_time() - began < 1, value[:50]


@pytest.mark.parametrize("key", NUMBERS, ids=".".join)
def test_an_absurd_number_is_refused_at_every_key(tmp_path: Path, key: Key) -> None:
    for slip in ("1e30", "-1e30", ".inf", "-.inf", ".nan", "9" * 30, "-1", "-0.5", "010", "1:30", "0x1F"):
        (tmp_path / "slip.yaml").write_text(job_text(key, slip))
        with pytest.raises(InputError, match=rf"slip.yaml line \d: {'.'.join(map(str, key))} is "):
            load_spec(tmp_path / "slip.yaml")


@pytest.mark.parametrize("key", [key for key in KEYS if 0 not in key], ids=".".join)
def test_each_key_without_a_value_is_refused_by_its_name_and_line(
    plan: Callable[..., None], tmp_path: Path, key: Key
) -> None:
    for nothing in ("", "~", "null", "''", '" "'):
        text = job_text(key, nothing)
        name = ".".join(map(str, key))
        plan(text, named=f"line {len(text.splitlines())}: {name}")


def test_a_file_full_of_faults_names_three_and_counts_the_others(plan: Callable[..., None]) -> None:
    many = "".join(f"k{number}: 1\n" for number in range(10_000))
    plan(many, named="line 2: k1 is not a key of a job (value 1)")
    plan(f"name: a\ndata: {{split: {{train_scenes: [{'~, ' * 10_000}]}}}}\n", named="and 9997 more")


_scalars = st.sampled_from(HOSTILE) | st.text(max_size=20) | st.integers().map(str) | st.floats().map(str)


@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(key=st.sampled_from(KEYS), value=_scalars, after=st.lists(_scalars, max_size=2))
def test_any_text_at_any_key_is_a_plan_or_one_line(
    plan: Callable[..., None], key: Key, value: str, after: list[str]
) -> None:
    plan(job_text(key, value))
    dotted = ".".join(map(str, key))
    values = [text.replace("\0", "") for text in (value, *after)]  # no argument holds a NUL
    plan("name: a\n", *(part for text in values for part in ("--set", f"{dotted}={text}")))
