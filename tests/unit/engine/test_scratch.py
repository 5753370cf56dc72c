"""A run's folder on a host's own disk."""

import os
from pathlib import Path

import pytest

from orchestrator.engine.host import scratch as module
from orchestrator.engine.host.scratch import scratch_folder
from orchestrator.storage.host_cache import HostCache
from orchestrator.storage.mounts import Mount


@pytest.fixture
def cache(tmp_path: Path) -> HostCache:
    return HostCache(base=tmp_path)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run is on a network file system here; tests/mounts has a real one."""
    monkeypatch.setattr(module, "mount_of", lambda path: Mount(Path("/mnt"), "nfs4"))


def test_a_run_on_a_local_disk_needs_none(cache: HostCache, tmp_path: Path) -> None:
    with scratch_folder(cache, tmp_path) as folder:
        assert folder is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("network")
def test_a_run_finds_its_folder_again_and_shares_it_with_no_other(cache: HostCache) -> None:
    with scratch_folder(cache, Path("/mnt/a")) as folder, scratch_folder(cache, Path("/mnt/b")) as other:
        assert folder is not None and folder != other
        (folder / "graph").write_text("x")
    with scratch_folder(cache, Path("/mnt/a")) as again:
        assert again == folder and (folder / "graph").read_text() == "x"


@pytest.mark.usefixtures("network")
def test_the_folders_of_old_runs_are_removed_and_those_in_use_stay(cache: HostCache) -> None:
    with scratch_folder(cache, Path("/mnt/running")) as running:
        assert running is not None
        with scratch_folder(cache, Path("/mnt/ended")) as ended:
            assert ended is not None
        for folder in (running, ended):
            os.utime(folder, (1, 1))
        for number in range(16):
            with scratch_folder(cache, Path(f"/mnt/{number}")):
                pass
        assert running.is_dir() and not ended.exists()


@pytest.mark.usefixtures("network")
def test_a_folder_that_another_rank_removes_at_the_same_time_is_no_error(
    cache: HostCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: [*listed(folder), folder / "removed"])
    with scratch_folder(cache, Path("/mnt/a")) as folder:
        assert folder is not None and folder.is_dir()
