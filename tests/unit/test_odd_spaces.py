"""Other spaces than those of YAML are refused where they would change the structure, and are content elsewhere."""

from pathlib import Path

import pytest

from orchestrator.job.spec.job_spec import load_spec
from orchestrator.job.spec.yaml_file import read_yaml_file
from sdnet.errors import InputError


def refused(job: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_spec(job)
    return str(caught.value)


@pytest.mark.parametrize(
    ("space", "name"),
    [("\u00a0", "no-break space"), ("\u3000", "ideographic space"), ("\u2003", "em space")],
)
@pytest.mark.parametrize("inner", ["recipe: demo", "recipe:\u00a0demo", "# recipe", ""])
def test_a_line_that_is_indented_with_another_space_is_named(
    tmp_path: Path, space: str, name: str, inner: str
) -> None:
    job = tmp_path / "cluster.yaml"
    job.write_text(f"name: a\ntrain:\n {space * 2}{inner}\n  epochs: 5\n", encoding="utf-8")
    assert refused(job) == f"{job} line 3 is indented with U+{ord(space):04X} ({name}); type spaces instead"


def test_other_spaces_stay_in_a_comment_and_in_the_name_of_a_folder(tmp_path: Path) -> None:
    job = tmp_path / "cluster.yaml"
    comments = "name: a # \u00a0: b\n#\u00a0train:\u00a0x\n"
    folders = "storage: /data/\u4e2d\u3000\u6587\ndata: {images: '/a\u00a0# b'}\n"
    job.write_text(comments + folders, encoding="utf-8")
    spec = load_spec(job)
    assert (spec.storage, spec.data.images) == ("/data/\u4e2d\u3000\u6587", "/a\u00a0# b")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("storage: |-\n  \u00a0/a\u00a0# b", "\u00a0/a\u00a0# b"),
        ("storage: >-\n  /a\u00a0# b\n  - \u00a0c", "/a\u00a0# b - \u00a0c"),
        ("storage: &a '/it''s\u00a0# b'", "/it's\u00a0# b"),
        ('storage: "/a\n\n  \u00a0b"', "/a\n\u00a0b"),
    ],
)
def test_other_spaces_are_content_in_quotes_and_in_a_block(tmp_path: Path, written: str, read: str) -> None:
    job = tmp_path / "cluster.yaml"
    job.write_text(f"name: a\n{written}\n", encoding="utf-8")
    assert read_yaml_file(job).plain() == {"name": "a", "storage": read}
    for structure in ("\u00a0train: {}", "train:\u00a0{}", "train: {} \u00a0# c"):
        job.write_text(f"name: a\n{written}\n{structure}\n", encoding="utf-8")
        assert "U+00A0 (no-break space)" in refused(job)
    job.write_text("name: a\nstorage: |-\u00a0# c\n  /a\n", encoding="utf-8")
    assert "line 2 has U+00A0 (no-break space)" in refused(job)
