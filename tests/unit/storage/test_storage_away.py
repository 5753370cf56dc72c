"""Storage that is away: nothing seems to be deleted, and no run is made again below an empty mount point."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ray.train import RunConfig

from orchestrator import MindSporeTrainer
from orchestrator.engine.rank.compile_cache import CompileCache
from orchestrator.storage import DirectoryStorage, StorageMisused, StorageUnavailable, takes_writes
from orchestrator.storage.lease import Lease, Owner
from orchestrator.storage.retry import outlasting
from orchestrator.telemetry.state import read_state


def train() -> None:
    """A training function that is never called."""


def no_wait(seconds: float) -> None:
    pytest.fail(f"waited {seconds} s")


CALLS: dict[str, Callable[[DirectoryStorage], object]] = {
    "put": lambda storage: storage.put("a/b", b""),
    "create": lambda storage: storage.create("a/b", b""),
    "get": lambda storage: storage.get("a/b"),
    "get_range": lambda storage: storage.get_range("a/b", 0, 1),
    "list": lambda storage: storage.list("a/"),
    "state": lambda storage: read_state(storage, 1),
    "lease": lambda storage: Lease(storage, 1, Owner.this_process()).check(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_whatever_finds_no_root_says_that_storage_is_away_and_makes_none(
    call: Callable[[DirectoryStorage], object], tmp_path: Path
) -> None:
    storage = DirectoryStorage(tmp_path / "run", no_wait)
    with pytest.raises(StorageUnavailable, match="run is not there"):
        call(storage)
    assert not storage.root.exists()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_root_that_the_server_has_forgotten_is_away_too(
    call: Callable[[DirectoryStorage], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = DirectoryStorage(tmp_path / "run", lambda seconds: None)

    def stale(*_: object, **__: object) -> object:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    for name in ("stat", "lstat", "open", "scandir", "mkdir"):
        monkeypatch.setattr(os, name, stale)
    with pytest.raises(StorageUnavailable, match="run is not there"):
        call(storage)


def test_a_probe_leaves_a_prepared_folder_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir(mode=0o2775)
    before = (tmp_path / "checkpoints").stat()
    assert takes_writes(DirectoryStorage(tmp_path), "checkpoints/")
    after = (tmp_path / "checkpoints").stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize("call", ["put", "get", "list"])
def test_a_broken_link_is_a_disk_that_is_not_mounted(call: str, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "disk")
    with pytest.raises(StorageUnavailable, match="disk is not there"):
        CALLS[call](DirectoryStorage(tmp_path, lambda seconds: None))


def test_a_trainer_whose_run_is_away_does_not_make_it_again(tmp_path: Path) -> None:
    root = tmp_path / "x"
    trainer = MindSporeTrainer(train, run_config=RunConfig(name="x", storage_path=str(tmp_path)))
    with pytest.raises(StorageUnavailable, match="x is not there"):
        trainer.fit(Lease(DirectoryStorage(root), 1, Owner.this_process()))
    assert not root.exists()


def test_compiled_graphs_do_not_make_a_run_that_is_away_again(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        CompileCache(tmp_path / "run" / "compiled", "key", 0).open()
    assert not (tmp_path / "run").exists()


def test_the_end_of_a_run_waits_for_a_mount_with_a_file_in_its_place(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path / "run")
    storage.root.touch()

    def mount(seconds: float) -> None:
        storage.root.unlink()
        storage.root.mkdir()

    outlasting(storage, lambda: storage.put("summary.json", b"{}"), 300.0, mount)
    assert storage.get("summary.json") == b"{}"


def test_the_end_of_a_run_does_not_wait_for_a_file_that_can_never_be_written(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)
    (tmp_path / "summary.json").mkdir()
    with pytest.raises(StorageMisused, match=r"summary\.json cannot be used"):
        outlasting(storage, lambda: storage.put("summary.json", b"{}"), 300.0, no_wait)


def test_reading_a_folder_leaves_no_descriptor_open(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    for _ in range(20):
        with pytest.raises(StorageMisused, match="Is a directory"):
            CALLS["get"](DirectoryStorage(tmp_path))
    assert len(list(descriptors.iterdir())) == before
