"""A folder on the host's own disk for what a run writes often: compiled graphs and logs of its ranks.

It is used only if the run's storage is on a network file system. Its files are uploaded, best effort, so that they
are not lost with the host.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from orchestrator.storage.bounded import within
from orchestrator.storage.host_cache import HostCache
from orchestrator.storage.mounts import mount_of

# Folders of runs that are kept for their next launch: a few MB of graphs for each rank.
_KEPT = 16


@contextlib.contextmanager
def scratch_folder(cache: HostCache, run: Path) -> Iterator[Path | None]:
    """The run's folder on this host, or None if the run is on a local file system.

    Raises InputError and StorageUnavailable as `HostCache.using`, and OSError.
    """
    if within(cache.stall_s, str(run), lambda: mount_of(run)).is_local:
        yield None
        return
    runs = cache.folder() / "runs"
    folder = runs / hashlib.sha256(str(run).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    # The lock marks the folder as in use. Its modification time records the last use.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.utime(descriptor)
        _remove_oldest(runs)
        yield folder
    finally:
        os.close(descriptor)


def _remove_oldest(runs: Path) -> None:
    """Remove the least recently used folders beyond `_KEPT`, unless a rank uses them."""
    last_use: dict[Path, int] = {}
    for folder in runs.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another rank removes the oldest ones at the same time
            last_use[folder] = folder.lstat().st_mtime_ns
    for folder in sorted(last_use, key=lambda path: last_use[path])[:-_KEPT]:
        with contextlib.suppress(OSError):  # in use, or removed by another rank at the same time
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(descriptor)
