"""Copies of shared files on a host's own disk: made once, verified, limited, and private."""

import contextlib
import fcntl
import hashlib
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import InputError
from orchestrator.storage import StorageMisused, StorageUnavailable
from orchestrator.storage.host_cache import HostCache
from tests.disk import small_disk
from tests.unprivileged import as_nobody, let_anybody_write

MB = 1_000_000
Plant = Callable[[Path], None]
COPY_IN_A_PROCESS = """
import sys
from pathlib import Path
from orchestrator.storage.host_cache import HostCache
base, source, sha256 = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
with HostCache(base=Path(base), limit_bytes=10**9).copied(Path(source), sha256) as path:
    print(path.stat().st_ino, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def cache(tmp_path: Path) -> HostCache:
    (tmp_path / "disk").mkdir()
    return HostCache(base=tmp_path / "disk", limit_bytes=3 * MB, stall_s=0.5)


def a_file(tmp_path: Path, name: str = "train.npz", size: int = MB) -> tuple[Path, str]:
    path = tmp_path / name
    path.write_bytes(hashlib.sha256(name.encode()).digest() * (size // 32) + b"x" * (size % 32))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def bind_a_socket(path: Path) -> None:
    """Make a socket at the path, which may be longer than the address of a socket."""
    with socket.socket(socket.AF_UNIX) as ours, contextlib.chdir(path.parent):
        ours.bind(path.name)


def copies_in(cache: HostCache) -> set[str]:
    return {path.name for path in cache.folder().iterdir() if path.suffix != ".lock"}


def test_a_copy_has_the_same_bytes_and_is_private(cache: HostCache, tmp_path: Path) -> None:
    source, sha256 = a_file(tmp_path)
    with cache.copied(source, sha256) as copy:
        assert copy.read_bytes() == source.read_bytes() and copy.name == sha256
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        assert stat.S_IMODE(copy.parent.stat().st_mode) == 0o700
    assert copies_in(cache) == {sha256}


def test_a_file_on_a_local_file_system_is_used_in_place(cache: HostCache, tmp_path: Path) -> None:
    source, sha256 = a_file(tmp_path)
    with cache.using(source, sha256) as path:
        assert path == source
    assert list(cache.base.iterdir()) == []


def test_a_copy_is_readable_while_the_server_is_unavailable(cache: HostCache, tmp_path: Path) -> None:
    source, sha256 = a_file(tmp_path)
    with cache.copied(source, sha256):
        pass
    source.unlink()
    with cache.copied(source, sha256) as copy:
        assert hashlib.sha256(copy.read_bytes()).hexdigest() == sha256


def test_processes_that_start_together_copy_once(tmp_path: Path) -> None:
    source, sha256 = a_file(tmp_path, size=20 * MB)
    command = [sys.executable, "-c", COPY_IN_A_PROCESS, str(tmp_path), str(source), sha256]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    try:
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        # A second copy would have replaced the first one by another file.
        files = {process.stdout.readline() for process in processes if process.stdout}
        assert files == {f"{(tmp_path / f'sdnet-cache-{os.geteuid()}' / sha256).stat().st_ino}\n"}
    finally:
        for process in processes:
            process.communicate("end\n")


def test_a_waiting_process_is_woken_when_the_lock_is_released(cache: HostCache, tmp_path: Path) -> None:
    source, sha256 = a_file(tmp_path)
    lock = os.open(cache.folder() / f"{sha256}.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    copied = threading.Event()

    def copy() -> None:
        with cache.copied(source, sha256):
            copied.set()

    thread = threading.Thread(target=copy)
    thread.start()
    assert not copied.wait(0.2)
    os.close(lock)
    assert copied.wait(5)
    thread.join()


def test_the_wait_for_a_copier_without_data_is_bounded(cache: HostCache, tmp_path: Path) -> None:
    source, sha256 = a_file(tmp_path)
    lock = os.open(cache.folder() / f"{sha256}.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with (
        pytest.raises(StorageUnavailable, match="another process of this host copies it and gets no data"),
        cache.copied(source, sha256),
    ):
        pass
    os.close(lock)
    with cache.copied(source, sha256) as copy:  # the abandoned wait did not take the lock
        assert copy.exists()


def test_the_cache_waits_for_a_file_that_appears_late(cache: HostCache, tmp_path: Path) -> None:
    source, sha256 = a_file(tmp_path)
    away = source.rename(tmp_path / "away")
    timer = threading.Timer(0.2, lambda: away.rename(source))
    timer.start()
    with cache.copied(source, sha256) as copy:
        assert copy.read_bytes() == source.read_bytes()


def test_a_file_that_never_appears_is_a_failure_of_storage(cache: HostCache, tmp_path: Path) -> None:
    with (
        pytest.raises(StorageUnavailable, match="train.npz cannot be reached or written .No such file"),
        cache.copied(tmp_path / "train.npz", "0" * 64),
    ):
        pass
    assert copies_in(cache) == set()


def test_something_else_at_the_path_is_refused_at_once(cache: HostCache, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageMisused, match="Not a directory"), cache.copied(tmp_path / "file" / "x", "0"):
        pass


def test_another_checksum_is_wrong_input(cache: HostCache, tmp_path: Path) -> None:
    source, sha256 = a_file(tmp_path)
    source.write_bytes(b"replaced")
    with (
        pytest.raises(InputError, match=r"train.npz on .* is not the file that the launch began with"),
        cache.copied(source, sha256),
    ):
        pass
    assert copies_in(cache) == set()


@pytest.mark.parametrize("damage", [lambda p: p.write_bytes(b"y" * MB), lambda p: os.truncate(p, 10)])
def test_a_copy_that_was_changed_is_made_again(cache: HostCache, tmp_path: Path, damage) -> None:
    source, sha256 = a_file(tmp_path)
    with cache.copied(source, sha256) as copy:
        pass
    damage(copy)
    with cache.copied(source, sha256) as copy:
        assert copy.read_bytes() == source.read_bytes()


def test_a_copy_that_lost_its_end_and_kept_its_time_is_made_again(cache: HostCache, tmp_path: Path) -> None:
    source, sha256 = a_file(tmp_path)
    with cache.copied(source, sha256) as copy:
        found = copy.stat()
    os.truncate(copy, 4096)
    os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns))
    with cache.copied(source, sha256) as copy:
        assert copy.read_bytes() == source.read_bytes()


def test_the_least_recently_used_copy_makes_room(cache: HostCache, tmp_path: Path) -> None:
    files = [a_file(tmp_path, name) for name in ("a", "b", "c", "d")]
    for source, sha256 in (*files[:3], files[0], files[3]):
        with cache.copied(source, sha256):
            pass
    assert copies_in(cache) == {files[index][1] for index in (0, 2, 3)}


def test_a_copy_in_use_is_never_removed(cache: HostCache, tmp_path: Path) -> None:
    (first, first_sum), (second, second_sum) = a_file(tmp_path, "a", 2 * MB), a_file(tmp_path, "b", 2 * MB)
    with (
        cache.copied(first, first_sum) as copy,
        pytest.raises(StorageUnavailable, match="running jobs use 0.002 of its 0.003 GB; wait for them"),
        cache.copied(second, second_sum),
    ):
        pass
    assert copy.exists()
    with cache.copied(second, second_sum):
        assert copies_in(cache) == {second_sum}


def test_a_file_above_the_limit_is_refused_with_the_setting(cache: HostCache, tmp_path: Path) -> None:
    source, sha256 = a_file(tmp_path, size=4 * MB)
    with (
        pytest.raises(InputError, match=r"has 0.004 GB .* 0.003 GB; raise cluster.cache.limit_gb"),
        cache.copied(source, sha256),
    ):
        pass


def test_what_killed_processes_left_is_removed(cache: HostCache, tmp_path: Path) -> None:
    left = cache.folder() / ".deadbeef.1.0000"
    left.write_bytes(b"x" * 2 * MB)
    source, sha256 = a_file(tmp_path, size=2 * MB)
    with cache.copied(source, sha256):
        assert copies_in(cache) == {sha256}


def test_a_full_disk_is_one_line_about_the_cache(tmp_path: Path) -> None:
    source, sha256 = a_file(tmp_path, size=4 * MB)
    with small_disk(tmp_path / "small", 2) as disk:
        cache = HostCache(base=disk, limit_bytes=10 * MB)
        with (
            pytest.raises(StorageUnavailable, match="the cache of this host: No space left .*cluster.cache"),
            cache.copied(source, sha256),
        ):
            pass
        assert copies_in(cache) == set()


@pytest.mark.parametrize(
    "plant", [lambda p: p.symlink_to("/tmp"), lambda p: p.touch(), lambda p: p.mkdir(0o777)]
)
def test_a_folder_that_others_could_have_planted_is_refused(cache: HostCache, plant) -> None:
    mine = cache.base / f"sdnet-cache-{os.geteuid()}"
    plant(mine)
    if mine.is_dir() and not mine.is_symlink():
        mine.chmod(0o777)
    with pytest.raises(InputError, match="is not a private folder of this user"):
        cache.folder()


def test_each_user_has_a_folder_that_others_cannot_enter(tmp_path: Path) -> None:
    base = tmp_path / "shared"
    base.mkdir()
    base.chmod(0o1777)
    let_anybody_write(tmp_path)
    HostCache(base=base, limit_bytes=MB).folder()
    theirs = as_nobody(lambda: HostCache(base=base, limit_bytes=MB).folder().name)
    assert {path.name for path in base.iterdir()} >= {f"sdnet-cache-{os.geteuid()}", theirs}


def test_a_planted_link_at_a_lock_is_not_followed(cache: HostCache, tmp_path: Path) -> None:
    source, sha256 = a_file(tmp_path)
    (cache.folder() / f"{sha256}.lock").symlink_to(tmp_path / "target")
    with pytest.raises(StorageMisused, match="the cache of this host"), cache.copied(source, sha256):
        pass
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("suffix", ["", ".lock"])
@pytest.mark.parametrize("plant", [lambda p: p.mkdir(), lambda p: p.symlink_to(p.name), bind_a_socket])
def test_what_is_in_the_way_of_a_copy_is_named_and_not_retried(
    cache: HostCache, tmp_path: Path, plant: Plant, suffix: str
) -> None:
    source, sha256 = a_file(tmp_path)
    way = cache.folder() / f"{sha256}{suffix}"
    plant(way)
    with (
        pytest.raises(StorageMisused, match=f"{way} cannot be used .the cache of this host: "),
        cache.copied(source, sha256),
    ):
        pass
    assert os.path.lexists(way)


def test_a_cache_in_a_folder_that_is_not_there_names_its_key_and_the_host(tmp_path: Path) -> None:
    cache = HostCache(base=tmp_path / "none")
    source, sha256 = a_file(tmp_path)
    with (
        pytest.raises(
            InputError, match=f"cluster.cache.path is {cache.base}, which is not there on .*; make"
        ),
        cache.copied(source, sha256),
    ):
        pass


def test_a_rank_that_copies_for_a_long_time_reports_that_it_is_alive(
    cache: HostCache, tmp_path: Path
) -> None:
    source, sha256 = a_file(tmp_path)
    lock = os.open(cache.folder() / f"{sha256}.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    beats: list[float] = []

    def alive() -> None:
        beats.append(time.monotonic())
        os.utime(lock)  # the other process still copies, so the wait may be longer than `stall_s`
        if len(beats) == 2:
            os.close(lock)

    with cache.copied(source, sha256, alive):
        assert len(beats) == 2
