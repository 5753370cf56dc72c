"""Copies of a job's data on each host's own disk: the cache that ranks use, and what `plan` reports about it."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.job.data.inputs import Supply, prepared_files
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import CacheSpec, JobSpec
from orchestrator.storage import storage_error
from orchestrator.storage.bounded import within
from orchestrator.storage.host_cache import HostCache
from orchestrator.storage.mounts import Mount, mount_of
from sdnet.paths import full_path

_ANSWER_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Copies:
    """What every host copies. mount: where the data are, as seen from here. size_bytes: 0 if nothing is copied."""

    place: Path
    mount: Mount
    size_bytes: int

    def describe(self, cache: CacheSpec) -> str:
        """A line for people."""
        if self.mount.is_local:
            return f"nothing is copied: {self.place} is on {self.mount.type}, a local file system, as seen from here"
        return (
            f"at most {_megabytes(self.size_bytes)} are copied to {cache.path} on each host, because {self.place} "
            f"is on {self.mount.type}, a network file system"
        )

    def problem(self, cache: CacheSpec) -> str:
        """Why no host can hold the copies, or empty."""
        if self.size_bytes <= cache.limit_gb * 1e9:
            return ""
        return (
            f"each host would copy {_megabytes(self.size_bytes)} of data, and cluster.cache.limit_gb is "
            f"{cache.limit_gb:g} ({_megabytes(cache.limit_gb * 1e9)}); raise it"
        )


def host_cache(cache: CacheSpec) -> HostCache:
    """The cache of any host that runs ranks of the job."""
    return HostCache(base=full_path(cache.path, "cluster.cache.path"), limit_bytes=int(cache.limit_gb * 1e9))


def planned_copies(spec: JobSpec, run: RunDirectory, supply: Supply, patch_bytes: int) -> Copies:
    """The most that each host will copy. If the patches do not exist yet, their size is estimated."""
    if spec.data.prepared is not None:
        return copies_of(*prepared_files(spec.data.prepared))
    return copies_in(run.train_npz, (supply.train + supply.test) * patch_bytes)


def copies_of(train: Path, test: Path) -> Copies:
    """What each host copies of existing files. Raises StorageError."""
    with data_errors(str(train)):
        return copies_in(train, train.stat().st_size + test.stat().st_size)


@contextlib.contextmanager
def data_errors(place: str) -> Iterator[None]:
    """Raise a failure of storage in the launcher as StorageError: a lost server is not the user's mistake.

    place: what the message names when the error does not say which file it was.
    """
    try:
        yield
    except OSError as error:
        raise storage_error(error.filename or place, error) from error


def copies_in(train: Path, size_bytes: int) -> Copies:
    mount = within(_ANSWER_WITHIN_S, str(train), lambda: mount_of(train))
    return Copies(train.parent, mount, 0 if mount.is_local else size_bytes)


def _megabytes(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"
