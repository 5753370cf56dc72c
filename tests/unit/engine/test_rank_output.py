"""A rank's log on a network file system: printed to a local file, uploaded whole."""

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.engine.host.rank_output import LogUpload
from orchestrator.storage import DirectoryStorage

PRINT = """
import os, sys
from pathlib import Path
from orchestrator.engine.host.rank_output import output_in_log
from orchestrator.storage import DirectoryStorage
root, scratch, word = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
with output_in_log(DirectoryStorage(root), root / "logs", 3, Path(scratch) if scratch else None):
    print(word, flush=True)
    os.system(f"echo {word} from a child")
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "run" / "logs").mkdir(parents=True)
    return tmp_path / "run"


def printed(root: Path, scratch: Path | str, word: str) -> None:
    subprocess.run([sys.executable, "-c", PRINT, str(root), str(scratch), word], check=True)


@pytest.mark.parametrize("local", [True, False])
def test_all_output_of_all_generations_is_in_the_log(root: Path, tmp_path: Path, local: bool) -> None:
    for number, word in enumerate(("one", "two")):
        scratch = tmp_path / f"host{number}"  # the second generation runs on another host
        scratch.mkdir()
        printed(root, "" if local else scratch, word)
    assert (root / "logs" / "rank_3.log").read_text() == "one\none from a child\ntwo\ntwo from a child\n"


def test_what_a_killed_rank_had_not_uploaded_is_uploaded_by_its_next_generation(
    root: Path, tmp_path: Path
) -> None:
    (root / "logs" / "rank_3.log").write_text("uploaded\n")
    (tmp_path / "rank_3.log").write_text("uploaded\nthe last words\n")
    printed(root, tmp_path, "again")
    lines = (root / "logs" / "rank_3.log").read_text().splitlines()
    assert lines == ["uploaded", "the last words", "again", "again from a child"]


def test_storage_that_refuses_a_log_stops_nobody(root: Path, tmp_path: Path) -> None:
    (tmp_path / "rank_3.log").write_text("a line\n")
    upload = LogUpload(DirectoryStorage(root / "gone"), "logs/rank_3.log", tmp_path / "rank_3.log")
    upload.upload()
    assert not (root / "gone").exists()
    (root / "gone" / "logs").mkdir(parents=True)
    upload.upload()
    assert (root / "gone" / "logs" / "rank_3.log").read_text() == "a line\n"


def test_a_log_that_did_not_grow_is_not_uploaded_again(root: Path, tmp_path: Path) -> None:
    log = tmp_path / "rank_3.log"
    log.write_text("a line\n")
    upload = LogUpload(DirectoryStorage(root), "logs/rank_3.log", log)
    upload.upload()
    (root / "logs" / "rank_3.log").unlink()
    upload.upload()
    assert not (root / "logs" / "rank_3.log").exists()
