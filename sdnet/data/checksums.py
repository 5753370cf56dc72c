"""Whether the files of a data set are still those that a run began with."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from sdnet.data.store import PatchFile, refuse_corrupt
from sdnet.errors import InputError
from sdnet.files import sha256_of

_SAMPLED = 64


def checksums_of(train: Path, test: Path) -> dict[str, str]:
    """SHA-256 of the files of a data set, by the names that checkpoints use.

    Raises InputError for a file whose arrays do not match their CRC-32 in the archive, OSError when storage
    fails. Cached: a file is read again only when its size or modification time has changed.
    """
    return {
        name: _checksum(path, path.stat().st_size, path.stat().st_mtime_ns)
        for name, path in (("train.npz", train.resolve()), ("test.npz", test.resolve()))
    }


def data_mismatch(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """The files whose checksums differ, as text for a message; empty if all that both name are equal."""
    return " and ".join(
        f"{name} (checksum {before[name][:12]}, now {now[name][:12]})"
        for name in sorted(before.keys() & now.keys())
        if before[name] != now[name]
    )


def sample_checksum(train: PatchFile, test: PatchFile) -> str:
    """SHA-256 of all labels, shifts and scenes and of 64 patches spread over each file: milliseconds for any size.

    Raises OSError when storage fails.
    """
    digest = hashlib.sha256()
    for patches in (train, test):
        for array in (patches.labels, patches.shifts, patches.ground):
            digest.update(b"" if array is None else array.tobytes())
        for patch in _sampled_patches(patches):
            digest.update(patch)
    return digest.hexdigest()


def refuse_other_sample(expected: str, train: PatchFile, test: PatchFile) -> None:
    """Raise InputError if this host has other files than the launcher.

    A rank may start on another host or long after the launch, so its files may be another copy or replaced.
    """
    if sample_checksum(train, test) != expected:
        raise InputError(
            f"{train.path} or {test.path} is not the file that the launch began with; "
            "put the same files back on every host, and launch again"
        )


@lru_cache(maxsize=8)
def _checksum(path: Path, size: int, changed_ns: int) -> str:
    refuse_corrupt(path)
    return sha256_of(path)


def _sampled_patches(patches: PatchFile) -> Iterator[bytes]:
    """64 patches spread over the file, read and not mapped as in `read_member`."""
    size = math.prod(patches.images.shape[1:])
    assert isinstance(patches.images, np.memmap), type(patches.images)
    begin = patches.images.offset
    with patches.path.open("rb") as file:
        for index in np.linspace(0, len(patches) - 1, _SAMPLED).astype(int):
            file.seek(begin + int(index) * size)
            yield file.read(size)
