"""Registration of many pairs: which are listed, which are refused, and the result of each."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from orchestrator.cli import main
from orchestrator.job.spec.job_spec import ClusterSpec
from orchestrator.register.on_workers import register_one, register_pairs, summary_of
from orchestrator.register.pairs import PairFiles, list_pairs
from sdnet.errors import InputError
from sdnet.files import alone_in
from sdnet.registration.config import RegisterConfig
from tests.made_pairs import pair

SHIFT = np.array([[1, 0, 9.25], [0, 1, -6.5], [0, 0, 1.0]])


def listed(folder: Path, text: str) -> list[PairFiles]:
    (folder / "pairs.csv").write_bytes(text.encode())
    return list_pairs(folder / "pairs.csv")


def test_a_table_names_files_beside_it_and_their_results(tmp_path: Path) -> None:
    found = listed(tmp_path, "\ufeffname,optical,sar\r\nharbour,a.png,/x/b.png\r\n,c.tif,d.tif\r\n")
    assert found == [
        PairFiles("harbour", tmp_path / "a.png", Path("/x/b.png")),
        PairFiles("c", tmp_path / "c.tif", tmp_path / "d.tif"),
    ]


def test_blanks_after_the_commas_of_a_table_do_not_matter(tmp_path: Path) -> None:
    found = listed(tmp_path, 'optical, sar, name\n"a,1.png", b.png, harbour\n')
    assert found == [PairFiles("harbour", tmp_path / "a,1.png", tmp_path / "b.png")]


def test_a_second_process_that_registers_into_the_same_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("optical,sar\na.png,b.png\n")
    with alone_in(tmp_path), pytest.raises(InputError, match="another process is working in"):
        register_pairs(tmp_path / "pairs.csv", tmp_path, RegisterConfig(), None, ClusterSpec())


def test_a_pair_named_like_the_table_of_all_pairs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("name,optical,sar\nregister.csv,a.png,b.png\n")
    with pytest.raises(InputError, match=r"names a pair register\.csv, as the table of all pairs"):
        register_pairs(tmp_path / "pairs.csv", tmp_path / "out", RegisterConfig(), None, ClusterSpec())


def test_a_folder_of_pairs_is_listed_as_for_training(tmp_path: Path) -> None:
    for sensor in ("s1", "s2"):
        (tmp_path / sensor).mkdir()
        (tmp_path / sensor / "p1.png").touch()
    [found] = list_pairs(tmp_path)
    assert (found.optical, found.sar) == (tmp_path / "s2/p1.png", tmp_path / "s1/p1.png")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "lists no pair"),
        ("optical,sar\n", "lists no pair"),
        ("optical;sar\na;b\n", r'has the columns \["optical;sar"\]; write `optical,sar` in its first line'),
        (
            "Optical,SAR\na,b\n",
            r'has the columns \["Optical", "SAR"\]; write `optical,sar` in its first line',
        ),
        ("optical,sar\na.png\n", "line 2, has no `optical` or no `sar`"),
        ("optical,sar\na.png,b.png\na.tif,c.png\n", 'has two pairs named "a"; add a column `name`'),
        ("optical,sar\n\na.png\n", "line 3, has no `optical` or no `sar`"),
        ("optical,sar\na,b.png,c.png\n", "line 2, has more cells than the header; quote a path"),
        ("optical,sar,sar\na.png,b.png,c.png\n", "has two columns `sar`; remove one of them"),
        ("name,optical,sar\n../x,a,b\n", 'names a pair "../x"; a name is that of a folder'),
        ("optical,sar\ns3://x/a,b\n", "optical is .*; that is a URL: mount or download it"),
    ],
)
def test_a_table_that_is_not_clear_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        listed(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_a_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"\x89PNG\r\n")
    for name, said in (("image.png", "is not a CSV file in UTF-8"), ("nowhere.csv", "cannot be read")):
        with pytest.raises(InputError, match=said):
            list_pairs(tmp_path / name)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("nowhere.csv",), "nowhere.csv cannot be read"),
        (("pairs.csv", "--model", "spline"), 'model is "spline"; it must be one of translation, affine'),
        (("pairs.csv", "--address", "somewhere"), 'cluster.address is "somewhere"'),
        (("pairs.csv", "--checkpoint", "nowhere.ckpt"), "nowhere.ckpt is not there"),
    ],
)
def test_a_wrong_command_is_refused_in_one_line_before_anything_starts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pairs.csv").write_text("optical,sar\na.png,b.png\n")
    monkeypatch.setattr(sys, "argv", ["sdnet-orchestrate", "register", *options, "-o", "out"])
    with pytest.raises(SystemExit) as ended:
        main()
    error = capsys.readouterr().err
    assert ended.value.code == 2 and said in error and error.count("\n") == 1
    assert not Path("out").exists()


def test_a_line_break_in_the_name_of_the_output_folder_is_printed_as_an_escape(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("orchestrator.register.on_workers.register_pairs", lambda *_: [{"status": "trusted"}])
    monkeypatch.setattr(sys, "argv", ["sdnet-orchestrate", "register", "pairs.csv", "-o", "two\nlines"])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert capsys.readouterr().out == "1 trusted, 0 not trusted, 0 unusable; see two\\nlines/register.csv\n"


@pytest.mark.parametrize(
    ("source", "row", "result"),
    [
        ("pairs.csv", "out/b/warped.png,s.png", "out/b/warped.png"),  # of another pair
        ("pairs.csv", "o.png,out/c/flicker.png", "out/c/flicker.png"),  # of the same pair
        ("out/register.csv", "../o.png,../s.png", "out/register.csv"),
    ],
)
def test_an_input_among_the_results_of_any_pair_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, row: str, result: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("out/b", "out/c"):
        Path(folder).mkdir(parents=True)
    Path(result).touch()
    Path(source).write_text(f"name,optical,sar\nb,x.png,y.png\nc,{row}\n")
    with pytest.raises(
        InputError, match=f"is an input, and register would replace it with its result {result};"
    ):
        register_pairs(Path(source), Path("out"), RegisterConfig(), None, ClusterSpec())
    assert Path(result).is_file()


def test_each_pair_ends_as_a_row_and_none_stops_the_others(tmp_path: Path) -> None:
    optical, sar = pair(320, SHIFT)
    for name, image in (("o", optical), ("s", sar), ("stranger", pair(320, SHIFT, seed=9)[1])):
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    config = RegisterConfig(measure="cfog")
    rows = [
        register_one(
            PairFiles(name, tmp_path / "o.png", tmp_path / f"{name}.png"), tmp_path / "out", config, None, 1
        )
        for name in ("s", "stranger", "missing")
    ]
    assert [row["status"] for row in rows] == ["trusted", "not_trusted", "unusable"]
    assert rows[0]["agreeing"] > 20 and rows[0]["reason"] == ""
    assert "chance" in rows[1]["reason"] and "missing.png cannot be read" in rows[2]["reason"]
    assert (tmp_path / "out/s/warped.png").is_file() and not (tmp_path / "out/stranger/warped.png").exists()
    assert summary_of(rows) == {"trusted": 1, "not_trusted": 1, "unusable": 1}
