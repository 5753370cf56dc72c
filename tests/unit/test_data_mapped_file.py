"""A mapped file that somebody changes in place is noticed; one that is replaced or only touched is no problem."""

import os
from pathlib import Path

import numpy as np
import pytest

from sdnet.data.store import PatchFile, open_patches
from sdnet.errors import InputError
from sdnet.files import sha256_of


@pytest.fixture
def patches(tmp_path: Path) -> PatchFile:
    np.savez(tmp_path / "train.npz", np.full((3, 64, 128), 7, np.uint8), np.ones(3, int))
    return open_patches(tmp_path / "train.npz")


def test_a_file_that_was_only_touched_is_accepted(patches: PatchFile) -> None:
    checksum = sha256_of(patches.path)
    patches.refuse_changed(checksum)
    os.utime(patches.path, (1, 1))
    patches.refuse_changed(checksum)
    patches.refuse_changed(None)  # the stamp of the touched file counts from now on


def test_a_file_that_is_replaced_by_rename_stays_mapped(patches: PatchFile, tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", np.zeros((3, 64, 128), np.uint8), np.ones(3, int))
    (tmp_path / "other.npz").rename(patches.path)
    patches.refuse_changed(None)
    assert (patches.images == 7).all()


@pytest.mark.parametrize("known", [True, False])
def test_other_bytes_in_place_are_refused_each_time(patches: PatchFile, known: bool) -> None:
    checksum = sha256_of(patches.path) if known else None
    np.savez(patches.path, np.zeros((3, 64, 128), np.uint8), np.ones(3, int))
    for _ in range(2):
        with pytest.raises(InputError, match=f"{patches.path} was changed while this run used it"):
            patches.refuse_changed(checksum)


def test_patches_in_memory_cannot_change() -> None:
    PatchFile(Path("train.npz"), np.zeros((3, 64, 128), np.uint8), np.ones(3, int)).refuse_changed(None)


def test_the_file_is_closed_with_its_patches(patches: PatchFile) -> None:
    def open_files() -> int:
        return sum(link.exists() for link in Path("/proc/self/fd").iterdir())

    before = open_files()
    again = open_patches(patches.path)
    assert open_files() > before
    del again
    assert open_files() == before
