"""The storage contract, for a directory."""

import errno
import io
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.job.run_directory import RunDirectory
from orchestrator.storage import (
    DirectoryStorage,
    ObjectMissing,
    StorageMisused,
    StorageUnavailable,
)
from orchestrator.storage import directory as module
from sdnet.errors import InputError
from tests.unprivileged import as_nobody, let_anybody_write

NAMES = st.lists(st.sampled_from(["a", "b", "events", "x.json"]), min_size=1, max_size=3).map("/".join)


@given(
    puts=st.lists(st.tuples(NAMES, st.binary(max_size=20)), max_size=12),
    prefix=st.sampled_from(["", "a", "a/", "events/"]),
)
def test_a_directory_returns_what_was_put_last(
    puts: list[tuple[str, bytes]], prefix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    storage = DirectoryStorage(tmp_path_factory.mktemp("root"))
    expected: dict[str, bytes] = {}
    for name, content in puts:
        taken_as_folder = any(known.startswith(f"{name}/") for known in expected)
        below_a_file = any(name.startswith(f"{known}/") for known in expected)
        if taken_as_folder or below_a_file:
            with pytest.raises(StorageMisused):
                storage.put(name, content)
        else:
            storage.put(name, content)
            expected[name] = content
    if prefix.removesuffix("/") in expected and prefix.endswith("/"):
        with pytest.raises(StorageMisused):  # an object is where the folder should be
            storage.list(prefix)
    else:
        assert storage.list(prefix) == sorted(name for name in expected if name.startswith(prefix))
    assert {name: storage.get(name) for name in expected} == expected


def test_a_part_of_an_object_can_be_read(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)
    storage.put("a", b"0123456789")
    assert storage.get_range("a", 3, 4) == b"3456" and storage.get_range("a", 8, 100) == b"89"


def test_a_deleted_object_is_missing_and_its_empty_folder_gone(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)
    storage.put("folder/a", b"x")
    storage.delete("folder/a")
    storage.delete("folder/a")
    with pytest.raises(ObjectMissing, match="folder/a does not exist"):
        storage.get("folder/a")
    assert list(tmp_path.iterdir()) == []


def test_create_has_exactly_one_winner(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)
    start, won = threading.Barrier(8), []

    def try_once(number: int) -> None:
        start.wait()
        if storage.create("lease/1", f"owner {number}".encode()):
            won.append(number)

    threads = [threading.Thread(target=try_once, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and storage.get("lease/1") == f"owner {won[0]}".encode()


def test_create_recognises_its_own_object_after_a_lost_reply(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)
    assert storage.create("lease/1", b"me") and storage.create("lease/1", b"me")
    assert not storage.create("lease/1", b"you")


def test_a_writer_that_dies_leaves_no_visible_object(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys\n"
        "from orchestrator.storage import DirectoryStorage\n"
        "from orchestrator.storage import directory\n"
        "def die(path, content):\n"
        "    path.write_bytes(content[:3]); os._exit(9)\n"
        "directory._write_new = die\n"
        "DirectoryStorage(pathlib.Path(sys.argv[1])).put('a/b', b'0123456789')\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert done.returncode == 9
    storage = DirectoryStorage(tmp_path)
    assert storage.list("") == [] and list((tmp_path / "a").iterdir()) != []


def test_a_folder_that_may_not_be_listed_is_reported_once_with_its_reason(tmp_path: Path) -> None:
    let_anybody_write(tmp_path)
    (tmp_path / "checkpoints/step_1").mkdir(parents=True)
    (tmp_path / "checkpoints/step_1").chmod(0)
    lines = io.StringIO()

    def list_twice() -> str:
        logging.getLogger("orchestrator.storage").addHandler(logging.StreamHandler(lines))
        names = [DirectoryStorage(tmp_path).list("checkpoints/") for _ in range(2)]
        return f"{names} {lines.getvalue()}"

    said = as_nobody(list_twice)
    (tmp_path / "checkpoints/step_1").chmod(0o700)
    folder = tmp_path / "checkpoints/step_1"
    reason = "(Permission denied); let this user read it, or move it away"
    assert said == f"[[], []] {folder} cannot be listed {reason}\n"


def test_tidying_removes_what_a_killed_writer_left_and_no_object(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)
    storage.put("checkpoints/a/model", b"1")
    storage.put("state/a", b"1")
    left = [tmp_path / name for name in (
        "checkpoints/a/.model.h.1.2.tmp", "checkpoints/b/.model.h.1.2.tmp", "state/.a.h.1.2.tmp"
    )]  # fmt: skip
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    storage.tidy("checkpoints/")
    storage.tidy("nowhere/")
    assert [path.exists() for path in left] == [False, False, True]
    assert not left[1].parent.exists()
    assert storage.list("") == ["checkpoints/a/model", "state/a"]


@pytest.mark.parametrize(
    "code", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EPERM, errno.ENOSPC, errno.EDQUOT]
)
def test_a_failed_write_is_unavailable_storage_and_leaves_the_old_object(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = DirectoryStorage(tmp_path)
    storage.put("a", b"old")

    def refuse(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(module.os, "fsync", refuse)
    with pytest.raises(StorageUnavailable, match=os.strerror(code)):
        storage.put("a", b"new")
    monkeypatch.undo()
    assert storage.get("a") == b"old" and [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_write_that_is_not_permitted_names_the_remedies_for_a_lost_mount_and_for_an_immutable_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(module.os, "fsync", refuse)
    with pytest.raises(StorageUnavailable) as refused:
        DirectoryStorage(tmp_path).put("a", b"new")
    immutable = "if it or its folder is immutable (`lsattr -d`), run `chattr -i`, or ask its owner"
    assert str(refused.value) == (
        f"a cannot be reached or written (Operation not permitted); mount the storage; {immutable}"
    )
    monkeypatch.setattr("tempfile.TemporaryFile", lambda dir: refuse())
    with pytest.raises(
        InputError, match=r"written \(Operation not permitted\); .*`chattr -i`, or ask its owner"
    ):
        RunDirectory(tmp_path).make_root()


def test_a_missing_root_is_never_made(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path / "mount")
    for write in (storage.put, storage.create):
        with pytest.raises(
            StorageUnavailable, match=f"a/b cannot be .* \\({storage.root} is not there\\); mount"
        ):
            write("a/b", b"x")
    assert not (tmp_path / "mount").exists()


def test_a_fifo_at_an_objects_name_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    assert DirectoryStorage(tmp_path).get("a") == b""


def test_a_link_to_a_device_is_refused_and_not_read_for_ever(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("/dev/zero")
    with pytest.raises(StorageMisused, match="a cannot be used .*it is a device.*; correct its type"):
        DirectoryStorage(tmp_path).get("a")


def test_a_folder_at_an_objects_name_is_named_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(StorageMisused, match="a cannot be used .*directory.*; correct its type"):
        DirectoryStorage(tmp_path).get("a")


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../a", "a/../../b", "a//b", "."])
def test_a_name_that_leads_out_of_storage_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="relative path"):
        DirectoryStorage(tmp_path).put(name, b"x")
