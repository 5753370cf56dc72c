"""Each primitive of a directory, on a mount with stale handles, late errors, lost replies and lagging listings."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.storage import DirectoryStorage, ObjectMissing, StorageMisused, StorageUnavailable
from orchestrator.storage.retry import RETRY_AFTER_S
from tests.failing_files import FailingFiles, Fault, failing_files

FAULTS = st.lists(st.sampled_from(Fault), max_size=14)
OLD, NEW = b"the old content", b"the new content, which is longer"
Roots = pytest.TempPathFactory


class Pauses(list[float]):
    """Records the pauses without waiting."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def storage_in(root: Path) -> DirectoryStorage:
    return DirectoryStorage(root, Pauses())


@settings(deadline=None)  # real files and a busy machine
@given(faults=FAULTS, name=st.sampled_from(["a", "folder/a", "deep/er/a"]), replaces=st.booleans())
def test_a_put_is_whole_or_has_failed_and_the_old_content_stays(
    faults: list[Fault], name: str, replaces: bool, tmp_path_factory: Roots
) -> None:
    storage = storage_in(tmp_path_factory.mktemp("root"))
    if replaces:
        storage.put(name, OLD)
    failed = False
    with failing_files(storage.root, faults):
        try:
            storage.put(name, NEW)
        except StorageUnavailable:
            failed = True
    allowed = {NEW} if not failed else {NEW, OLD if replaces else None}
    assert (storage.get(name) if storage.list("") else None) in allowed
    assert storage.list("") in ([name], [] if failed and not replaces else [name])


@settings(deadline=None)  # real files and a busy machine
@given(faults=FAULTS)
def test_a_get_returns_the_whole_content_or_reports_that_storage_is_unavailable(
    faults: list[Fault], tmp_path_factory: Roots
) -> None:
    storage = storage_in(tmp_path_factory.mktemp("root"))
    storage.put("a", NEW)
    with failing_files(storage.root, faults):
        try:
            assert storage.get("a") == NEW and storage.get_range("a", 4, 3) == NEW[4:7]
        except StorageUnavailable:
            assert set(faults) - {Fault.NONE}


@pytest.mark.parametrize("operation", ["put", "get", "list", "delete", "create"])
@pytest.mark.parametrize("times", [1, len(RETRY_AFTER_S), len(RETRY_AFTER_S) + 1])
def test_stale_handles_are_retried_for_a_bounded_time(operation: str, times: int, tmp_path: Path) -> None:
    pauses = Pauses()
    storage = DirectoryStorage(tmp_path, pauses)
    if operation != "create":
        storage.put("a", NEW)
    calls = {
        "put": lambda: storage.put("a", OLD),
        "get": lambda: storage.get("a"),
        "list": lambda: storage.list(""),
        "delete": lambda: storage.delete("a"),
        "create": lambda: storage.create("a", NEW),
    }
    with failing_files(tmp_path) as files:
        files.faults = [Fault.STALE] * times
        if operation == "put":  # each try unlinks its temporary file, which is a call of its own
            files.faults = [Fault.STALE, Fault.NONE] * times
        if times <= len(RETRY_AFTER_S):
            calls[operation]()
        else:
            with pytest.raises(StorageUnavailable, match="Stale file handle"):
                calls[operation]()
    assert pauses == list(RETRY_AFTER_S[:times])


@settings(deadline=None)  # real files and a busy machine
@given(faults=FAULTS)
def test_a_delete_can_be_repeated_until_it_succeeds(faults: list[Fault], tmp_path_factory: Roots) -> None:
    storage = storage_in(tmp_path_factory.mktemp("root"))
    storage.put("folder/a", NEW)
    with failing_files(storage.root, faults) as files:
        while True:
            try:
                storage.delete("folder/a")
                break
            except StorageUnavailable:
                assert set(faults) - {Fault.NONE}
        files.faults = []
        with pytest.raises(ObjectMissing):
            storage.get("folder/a")


@settings(deadline=None)  # real files and a busy machine
@given(
    faults=st.lists(FAULTS, min_size=2, max_size=4),
    order=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    eperm=st.booleans(),
)
def test_create_never_has_two_winners_however_often_it_is_repeated(
    faults: list[list[Fault]], order: list[int], eperm: bool, tmp_path_factory: Roots
) -> None:
    root = tmp_path_factory.mktemp("root")
    contents = [f"launch {number}".encode() for number in range(len(faults))]
    answers: dict[int, set[bool]] = {number: set() for number in range(len(faults))}
    with failing_files(root) as files:
        files.eperm = eperm
        for turn in order:
            number = turn % len(faults)
            files.faults = faults[number]  # what this launch's mount still does
            try:
                answers[number].add(storage_in(root).create("lease/1", contents[number]))
            except StorageUnavailable:
                continue
    winners = [number for number, answered in answers.items() if True in answered]
    assert len(winners) <= 1
    for number in winners:
        assert storage_in(root).get("lease/1") == contents[number] and answers[number] == {True}


@pytest.mark.parametrize("eperm", [False, True], ids=["EEXIST", "EPERM"])
def test_the_loser_of_create_looks_and_sees_that_it_lost(eperm: bool, tmp_path: Path) -> None:
    storage = storage_in(tmp_path)
    with failing_files(tmp_path) as files:
        files.eperm = eperm
        assert storage.create("lease/1", b"first")
        assert not storage.create("lease/1", b"second")
        assert storage.create("lease/1", b"first")


@pytest.mark.parametrize(
    ("code", "error"),
    [(errno.EPERM, StorageUnavailable), (errno.EACCES, StorageMisused)],
    ids=["EPERM", "EACCES"],
)
def test_a_create_without_permission_is_an_error_and_not_a_lost_race(
    code: int, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object, flags: int, *arguments: object) -> int:
        raise OSError(code if flags & os.O_CREAT else errno.ENOENT, "refused")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(error):
        storage_in(tmp_path).create("a", b"x")


def test_a_name_that_this_mount_does_not_show_yet_is_retried(tmp_path: Path) -> None:
    storage = storage_in(tmp_path)
    storage.put("lease/1", b"another launch")
    tries = []

    class ForgetsOnce(FailingFiles):
        """O_EXCL is answered by the server, and the read that follows by this mount's cache."""

        def open(self, path: object, flags: int, *arguments: object, **options: object) -> int:
            tries.append(flags)
            if len(tries) == 2:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
            return super().open(path, flags, *arguments, **options)

    files = ForgetsOnce(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.open", files.open)
        assert not storage.create("lease/1", b"me")
    assert len(tries) == 4


def test_a_listing_may_lag_and_a_known_name_is_still_read(tmp_path: Path) -> None:
    storage = storage_in(tmp_path)
    for name in ("new", "old"):
        storage.put(name, name.encode())
    with failing_files(tmp_path) as files:
        files.hidden, files.ghosts = {"new"}, {"gone"}
        assert storage.list("") == ["gone", "old"]
        assert storage.get("new") == b"new"
        with pytest.raises(ObjectMissing):
            storage.get("gone")


def test_a_folder_that_another_host_removed_is_made_again(tmp_path: Path) -> None:
    storage = storage_in(tmp_path)

    class BelievesInTheFolder(FailingFiles):
        """The first mkdir is answered from a cache: the folder was there."""

        believed = False

        def changing(self, original):
            def call(path: object, *arguments: object, **options: object) -> object:
                if original.__name__ == "mkdir" and not self.believed:
                    self.believed = True
                    raise FileExistsError(errno.EEXIST, "File exists", str(path))
                return original(path, *arguments, **options)

            return call

    files = BelievesInTheFolder(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "mkdir", files.changing(os.mkdir))
        storage.put("folder/a", NEW)
    assert storage.get("folder/a") == NEW


def test_a_server_that_fails_and_returns_still_has_its_objects(tmp_path: Path) -> None:
    storage = storage_in(tmp_path)
    storage.put("a", OLD)
    with failing_files(tmp_path) as files:
        files.away = True
        for call in (
            lambda: storage.put("a", NEW), lambda: storage.get("a"), lambda: storage.list(""),
            lambda: storage.delete("a"), lambda: storage.create("b", NEW),
        ):  # fmt: skip
            with pytest.raises(StorageUnavailable, match="not connected.*; mount or free the storage"):
                call()
        files.away = False
        assert storage.list("") == ["a"] and storage.get("a") == OLD


def test_a_lost_mount_never_gives_a_part_of_a_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, scandir = storage_in(tmp_path), os.scandir
    storage.put("a/1", OLD)
    storage.put("b/1", OLD)
    refusal = errno.EPERM

    def refuse_b(path: Path | str) -> object:
        if str(path).endswith("/b"):
            raise OSError(refusal, os.strerror(refusal), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse_b)
    with pytest.raises(StorageUnavailable):
        storage.list("")
    refusal = errno.EACCES  # a folder of another user
    assert storage.list("") == ["a/1"]


def test_a_rename_that_the_server_did_twice_is_a_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # An NFS client that gets no reply asks again, and the second answer is that the temporary name is gone.
    storage, replace = storage_in(tmp_path), os.replace
    answered = iter([True])

    def twice(source: Path, target: Path) -> None:
        replace(source, target)
        if next(answered, False):
            replace(source, target)

    monkeypatch.setattr(os, "replace", twice)
    storage.put("a", NEW)
    assert storage.get("a") == NEW and [path.name for path in tmp_path.iterdir()] == ["a"]
