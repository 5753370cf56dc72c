"""A disk that a test can really fill: a small tmpfs, mounted while the test runs."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_BLOCK = 1 << 16


@contextmanager
def small_disk(path: Path, mebibytes: int) -> Iterator[Path]:
    """Mount an empty disk of this size at `path`; skips the test where that is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a disk")
    path.mkdir()
    size = f"size={mebibytes}m"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(path)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield path
    finally:
        # Lazy: a process of a failed test may still have a file open.
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(disk: Path) -> Path:
    """Use all free space, to the last byte; deleting the returned file frees it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(_BLOCK))
        except OSError as error:
            assert error.errno == errno.ENOSPC
    return filler
