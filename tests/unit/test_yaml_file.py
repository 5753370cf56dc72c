"""YAML has one meaning here: what YAML readers disagree about is text, or refused with its line."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.job.spec import yaml_file
from orchestrator.job.spec.yaml_file import NotYaml, read_yaml, read_yaml_file
from orchestrator.job.spec.yaml_text import yaml_text
from sdnet.errors import InputError

CONFIGS = Path(__file__).resolve().parents[2] / "cluster_configs"


def values_of(text: str) -> Any:
    return read_yaml(text, lambda line: f"line {line}").plain()


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1", 1), ("-1", -1), ("0", 0), ("1.5", 1.5), (".5", 0.5), ("1.", 1.0),
        ("1e-3", 0.001), ("1.0e-3", 0.001), ("1E5", 100000.0),
        ("true", True), ("yes", True), ("On", True), ("FALSE", False), ("no", False), ("off", False),
        ("", None), ("~", None), ("null", None),
        # Other readers make 8, 31, 1000, 90, 5400, a date and an error of these.
        ("010", "010"), ("0x1F", "0x1F"), ("1_000", "1_000"), ("1:30", "1:30"), ("1:30:00", "1:30:00"),
        ("2026-01-31", "2026-01-31"), ("2026-13-45", "2026-13-45"), ("=", "="), ("0o17", "0o17"),
        ("'5'", "5"), ('"a\\tb"', "a\tb"), ("y", "y"), ("/data/#1", "/data/#1"), ("h:6379", "h:6379"),
    ],
)  # fmt: skip
def test_a_plain_value_is_what_it_looks_like(written: str, value: Any) -> None:
    found = values_of(f"key: {written}")["key"]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: a is given twice, first in line 1; delete one of them"),
        ("a:\n  b: 1\n  'b': 2\n", "line 3: a.b is given twice, first in line 2; delete one of them"),
        ("a: {0: x, '0': y}", "line 1: a.0 is given twice, first in line 1; delete one of them"),
        ("a: !!int x", 'line 1: a has the tag "tag:yaml.org,2002:int"; remove it, and put text in quotes'),
        (
            "a: 1\n---\nb: 2\n",
            "line 2 begins a second document; delete the line `---` and what follows it, or",
        ),
        ("a: x\n  y\n", "line 1: a is a text over lines 1 to 2; put it on one line"),
        (
            "a: x\n  b: y\n",
            "line 1: a is a text over lines 1 to 2; put it on one line, and do not indent `b:`",
        ),
        ('a = "x"\nb = 1\n', "line 1 is a text over lines 1 to 2; this is not YAML: write `key: value`, not"),
        ("a:\n  b:1\n  c: 2\n", "line 2: a is a text over lines 2 to 3; put a space after `b:`"),
        ("a: x\n\n  y\n", "line 1: a is a text over lines 1 to 3; put it on one line"),
        ('a: "x\n  y"\n', "line 1: a is a text over lines 1 to 2; put it on one line"),
        ("a: *b", "line 1: a is the alias *b of an anchor that is not complete before it; define it before"),
        ("a: &b [*b]", "line 1: a.0 is the alias *b of an anchor that is not complete before it"),
        ("a: &b 1\nc: &b 2", "line 2: c has the anchor &b, which is given twice; rename one"),
        ("{{ x }}: 1", "line 1 has a list or a section for a key; write text there, and fill in any {{"),
        ("? [a]\n: b", "line 1 has a list or a section for a key"),
        ("!x a: b", 'line 1 has a key with the tag "!x"; remove it'),
        ("<<: 1", "line 1 has a `<<` that is no section; give it an alias of one"),
        ("a: " + "9" * 5000, "line 1: a is a number of 5000 digits; no key takes one"),
        ("a: " + "[" * 100_000, "line 1: a is nested deeper than 20 levels; no key of a job is"),
        ("a:\n  - b\n  - c: \x00", "line 3 contains the character U+0000; remove it"),
        ("a: 1\u2028b: 2", "line 1 contains the character U+2028; remove it"),
        ("a: \ud800", "line 1 contains the character U+D800; remove it"),
    ],
)
def test_what_would_mean_something_else_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        values_of(text)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "line 1 is not YAML ("),
        (
            "a:\n    b: 1\n  c: 2\n",
            "line 3 is not YAML (did not find expected key); it begins with 2 spaces; indent it",
        ),
        ("a:\n    - b\n  - c\n", "indent it like the items beside it"),
        ("# job\n a: 1\nb: 2\n", "line 2 is indented; begin all keys of a job without spaces"),
        ('a: "b\nc: 1\n', "line 1 is not YAML (found unexpected end of stream); close its quote"),
        ("a:\n\tb: 1", "indent with spaces, not with tabs"),
        ("a: 1\nb\uff1a2\n", "it has a full-width sign such as '\uff1a': type the ASCII one"),
        ("a: [::1]:6379", "begins with a sign like [ { @ % * in quotes"),
        ("a: {b: ${C:-3}}", "variables and templates are not expanded here: write the value"),
        ("a: 1\n<<<<<<< HEAD\nb: 2\n", "line 2 has the conflict mark <<<<<<< of Git; merge the two versions"),
        ("a: 1\n=======\nb: 2\n", "line 2 has the conflict mark ======= of Git"),
        ("a: 1\n>>>>>>> topic\n", "line 2 has the conflict mark >>>>>>> of Git"),
        (
            "a: 1\n\ufeffb: 2\n",
            "line 2 begins with a byte-order mark (U+FEFF), as where two files were joined",
        ),
    ],
)
def test_a_syntax_error_has_its_line_and_a_remedy(text: str, said: str) -> None:
    with pytest.raises(NotYaml) as caught:
        values_of(text)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_aliases_that_multiply_are_refused_before_they_take_memory() -> None:
    laughs = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    laughs += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    with pytest.raises(InputError, match="line 5: a4.7 makes more than 100,000 values, with those of its"):
        values_of("\n".join(laughs))


def test_a_section_can_start_from_another_and_shares_nothing_with_it() -> None:
    found = values_of("a: &a {x: 1, y: [2]}\nb: {<<: *a, x: 3}\nc: {<<: [{x: 5}, *a]}\nd: *a\n")
    assert found == {
        "a": {"x": 1, "y": [2]},
        "b": {"x": 3, "y": [2]},
        "c": {"x": 5, "y": [2]},
        "d": found["a"],
    }
    assert found["d"]["y"] is not found["a"]["y"]


def test_each_value_knows_the_line_of_its_key() -> None:
    root = read_yaml("a:\n  b:\n    - 1\n    - c: no\nd: 2\n", str)
    assert [root.at(path).line for path in ((), ("a",), ("a", "b"), ("a", "b", 1, "c"), ("d",))] == [
        1,
        1,
        2,
        4,
        5,
    ]
    assert root.at(("a", "b", 1, "c")).written == "no"
    assert root.at(("a", "nowhere", "x")).line == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("name: a".encode("utf-16"), "cluster.yaml is UTF-16; save it as UTF-8"),
        (
            "name: a".encode("utf-16-le"),
            "cluster.yaml is UTF-16 or UTF-32, or no text at all; save it as UTF-8",
        ),
        ("name: a".encode("utf-32"), "cluster.yaml is UTF-32; save it as UTF-8"),
        (
            "a: 1\nb: /\u4e2d".encode("gbk"),
            "cluster.yaml line 2 is not UTF-8 (byte 0xd6); save the file as UTF-8",
        ),
        (b"#" * (1 << 20) + b"#", "cluster.yaml is larger than 1 MB; give the path of a cluster.yaml"),
    ],
)
def test_other_encodings_and_huge_files_are_named(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "cluster.yaml").write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_yaml_file(tmp_path / "cluster.yaml")
    assert str(caught.value) == f"{tmp_path}/{said}"


def test_utf8_with_a_byte_order_mark_and_lines_of_windows_are_read(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_bytes("\ufeffa: \u4e2d\r\nb: 2\r\n".encode())
    root = read_yaml_file(tmp_path / "cluster.yaml")
    assert root.plain() == {"a": "\u4e2d", "b": 2} and root.at(("b",)).line == 2


def test_a_loop_of_links_and_a_folder_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, reason in ((tmp_path / "loop", "Too many levels"), (tmp_path, "Is a directory")):
        with pytest.raises(InputError, match=f"cannot be read .{reason}"):
            read_yaml_file(path)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("**/*.yaml")), ids=lambda path: path.name)
def test_our_own_files_mean_what_pyyaml_reads(path: Path) -> None:
    if "---" not in path.read_text():
        # Keys are text here, as they are in JSON.
        assert read_yaml_file(path).plain() == json.loads(json.dumps(yaml.safe_load(path.read_text())))


@given(
    st.recursive(
        st.text() | st.integers() | st.booleans() | st.floats(allow_nan=False),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_what_we_write_is_read_as_it_was(value: Any) -> None:
    assert values_of(yaml_text({"key": value})) == {"key": value}


@pytest.mark.parametrize("text", ["1e3", "5e-1", "/data/" + "a long name " * 20 + "end", "010", "1:30"])
def test_text_that_pyyaml_would_fold_or_leave_without_quotes_is_read_as_text(text: str) -> None:
    assert values_of(yaml_text({"key": [text]})) == {"key": [text]}


def test_the_parser_without_libyaml_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [path.read_text() for path in CONFIGS.glob("*.yaml")]
    with_libyaml = [values_of(text) for text in texts]
    monkeypatch.setattr(yaml_file, "LOADER", yaml.SafeLoader)
    assert [values_of(text) for text in texts] == with_libyaml
    with pytest.raises(InputError, match="nested deeper"):
        values_of("[" * 100_000)
