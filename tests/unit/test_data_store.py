"""Patches on disk: streamed out, mapped in place, and refused with one line when they cannot be used."""

import hashlib
import io
import struct
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib import format as npy

from sdnet.data.checksums import checksums_of, data_mismatch, refuse_other_sample, sample_checksum
from sdnet.data.store import PatchFile, open_patches, open_training_patches, write_patches
from sdnet.errors import InputError


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 64, 128), np.uint8)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "train.npz"
    np.savez(path, noise(5), np.array([1, 0, 1, 0, 1], np.int32))
    return path


def test_what_was_streamed_is_read_back_by_us_and_by_numpy(tmp_path):
    path, images, labels = tmp_path / "a.npz", noise(7), np.array([1, 1, 0, 1, 0, 0, 1])
    write_patches(path, 7, iter([images[:3], images[3:3], images[3:]]), labels)
    ours = open_patches(path)
    np.testing.assert_array_equal(ours.images, images)
    np.testing.assert_array_equal(ours.labels, labels)
    with np.load(path, allow_pickle=False) as theirs:
        np.testing.assert_array_equal(theirs["arr_0"], images)
        assert theirs["arr_1"].dtype == np.int32
    assert len(ours) == 7 and [file.name for file in tmp_path.iterdir()] == ["a.npz"]


def test_images_are_mapped_read_only_and_not_loaded(saved):
    images = open_patches(saved).images
    assert isinstance(images, np.memmap) and images.mode == "r" and not images.flags.writeable


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8])
def test_files_of_numpy_savez_are_read_whatever_the_integers(tmp_path, dtype):
    np.savez(tmp_path / "a.npz", noise(4), np.array([1, 0, 0, 1], dtype))
    patches = open_patches(tmp_path / "a.npz")
    np.testing.assert_array_equal(patches.images, noise(4))
    assert patches.labels.dtype == np.int32 and patches.labels.tolist() == [1, 0, 0, 1]


@pytest.mark.shared
def test_the_published_patches_are_read(shared):
    patches = open_patches(shared / "reference/patches.npz")
    assert patches.images.shape == (64, 64, 128) and patches.labels.sum() == 32


def test_equal_patches_make_equal_bytes_however_they_were_cut_into_chunks(tmp_path):
    images, labels = noise(6), np.ones(6, np.int32)
    write_patches(tmp_path / "a.npz", 6, [images], labels)
    write_patches(tmp_path / "b.npz", 6, [images[:1], images[1:]], labels)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_stream_that_breaks_off_leaves_the_file_before_and_nothing_else(saved, tmp_path):
    before = saved.read_bytes()

    def chunks():
        yield noise(2)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_patches(saved, 4, chunks(), np.ones(4))
    assert saved.read_bytes() == before and list(tmp_path.iterdir()) == [saved]


def test_patches_above_4_gb_are_found_at_their_offset(tmp_path):
    """The file is sparse except at its ends, so it needs no disk space."""
    path, count = tmp_path / "large.npz", 540_000
    size = count * 64 * 128
    assert size > 2**32
    _write_sparse_npz(path, count)
    patches = open_patches(path)
    assert len(patches) == count and patches.images.shape == (count, 64, 128)
    assert patches.images[-1, -1, -1] == 77 and patches.images[0].max() == 0
    assert path.stat().st_blocks * 512 < 2**26


def test_our_writer_makes_zip64_entries_so_that_a_set_may_pass_4_gb(tmp_path):
    write_patches(tmp_path / "a.npz", 1, [noise(1)], np.ones(1))
    header = (tmp_path / "a.npz").read_bytes()[:60]
    name_length, extra_length = struct.unpack_from("<HH", header, 26)
    kind, length = struct.unpack_from("<HH", header, 30 + name_length)
    assert (kind, length, extra_length) == (1, 16, 20)  # APPNOTE 4.5.3: zip64, two 8-byte sizes


def _npz(
    path: Path, *, order: Literal["C", "F"] = "C", compress: int = zipfile.ZIP_STORED, **arrays: np.ndarray
) -> Path:
    with zipfile.ZipFile(path, "w", compress) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.save(member, np.asarray(array, order=order), allow_pickle=True)
            archive.writestr(f"{name}.npy", member.getvalue())
    return path


ONES = np.ones(2, int)
REFUSED = {
    "float": (np.zeros((2, 64, 128), np.float32), ONES, "arr_0 is float32"),
    "other shape": (np.zeros((2, 32, 64), np.uint8), ONES, r"arr_0 is uint8 \[2, 32, 64\]; it must be"),
    "flat": (np.zeros((2, 8192), np.uint8), ONES, r"must be uint8 \[N, 64, 128\]"),
    "labels short": (noise(3), ONES, r"arr_1 is int64 \[2\]; it must be integers \[3\]"),
    "labels float": (noise(2), np.ones(2), "arr_1 is float64"),
    "label of 2": (noise(2), np.array([1, 2]), r"1 of 2 labels in arr_1 are neither 1 .* such as 2; correct"),
    "labels of -1": (noise(2), np.array([1, -1]), r"1 of 2 labels in arr_1 are neither 1 .* such as -1"),
    "labels bool": (noise(2), np.ones(2, bool), "arr_1 is bool"),
    "labels in a column": (noise(2), np.ones((2, 1), int), r"arr_1 is int64 \[2, 1\]"),
    "empty": (noise(0), np.ones(0, int), "holds no patches"),
    "pickled": (np.array([{}, {}], object), ONES, "pickled objects in arr_0"),
    "pickled labels": (noise(2), np.array([{}, {}], object), "pickled objects in arr_1"),
}


@pytest.mark.parametrize("images, labels, message", REFUSED.values(), ids=REFUSED)
def test_arrays_of_another_kind_are_refused_in_one_line_that_names_the_file(
    tmp_path, images, labels, message
):
    path = _npz(tmp_path / "odd.npz", arr_0=images, arr_1=labels)
    with pytest.raises(InputError, match=message) as refusal:
        open_patches(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_fortran_order_and_compression_are_refused_with_the_remedy(tmp_path):
    images, labels = noise(2), np.ones(2, int)
    with pytest.raises(InputError, match=r"Fortran order; write it with numpy\.ascontiguousarray"):
        open_patches(_npz(tmp_path / "f.npz", order="F", arr_0=images, arr_1=labels))
    with pytest.raises(InputError, match=r"compressed and cannot be mapped; write it with numpy\.savez"):
        open_patches(_npz(tmp_path / "c.npz", compress=zipfile.ZIP_DEFLATED, arr_0=images, arr_1=labels))


def test_an_archive_without_labels_is_refused_with_what_it_holds(tmp_path):
    with pytest.raises(InputError, match=r"has no arr_1, but arr_0\.npy; write it with numpy\.savez"):
        open_patches(_npz(tmp_path / "a.npz", arr_0=noise(2)))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.npz is not there; make it with `preprocess`"):
        open_patches(tmp_path / "none.npz")
    with pytest.raises(
        InputError, match=r"cannot be read \(Is a directory\); it must be a readable \.npz file"
    ):
        open_patches(tmp_path)


def test_the_directory_of_a_run_instead_of_its_data_is_refused_with_the_folder_to_give(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/test.npz").touch()
    with pytest.raises(InputError, match=rf"test\.npz is not there; .* or give {tmp_path}/data$"):
        open_patches(tmp_path / "test.npz")


def test_a_single_array_and_a_path_below_a_file_are_refused_with_what_to_give_instead(tmp_path):
    np.save(tmp_path / "train.npy", noise(2))
    (tmp_path / "train.npy").rename(tmp_path / "train.npz")
    with pytest.raises(
        InputError, match=r"train\.npz is a single array \(\.npy\); write it with numpy\.savez"
    ):
        open_patches(tmp_path / "train.npz")
    with pytest.raises(
        InputError, match=r"train\.npz is a file; give the folder with train\.npz and test\.npz"
    ):
        open_patches(tmp_path / "train.npz" / "train.npz")


def _whole_npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, noise(3), np.array([1, 0, 1]))
    return file.getvalue()


WHOLE = _whole_npz()


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_off_anywhere_is_refused(cut_path, share):
    cut_path.write_bytes(WHOLE[: int(share * len(WHOLE))])
    with pytest.raises(InputError, match="not a whole .npz") as refusal:
        open_patches(cut_path)
    assert "\n" not in str(refusal.value)


@given(position=st.integers(0, 200), value=st.integers(0, 255))
def test_damaged_headers_are_refused_or_harmless_but_never_a_crash(cut_path, position, value):
    damaged = bytearray(WHOLE)
    damaged[position] = value
    cut_path.write_bytes(damaged)
    try:
        patches = open_patches(cut_path)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert patches.images.shape == (3, 64, 128)


@pytest.mark.parametrize("labels, count", [([1, 1, 0], 1), ([0, 0, 0], 3)])
def test_non_matches_in_training_data_are_refused_with_their_number(tmp_path, labels, count):
    np.savez(tmp_path / "train.npz", noise(3), np.array(labels))
    with pytest.raises(InputError, match=rf"holds {count} non-matches \(label 0\) among 3 pairs; training"):
        open_training_patches(tmp_path / "train.npz")
    np.savez(tmp_path / "train.npz", noise(3), np.ones(3, int))
    assert len(open_training_patches(tmp_path / "train.npz")) == 3


def test_a_checksum_is_that_of_the_file_as_it_is_now(tmp_path):
    train, test = tmp_path / "a.npz", tmp_path / "b.npz"
    np.savez(train, 1)
    np.savez(test, 2)
    before = checksums_of(train, test)
    assert before == {
        f"{name}.npz": hashlib.sha256(file.read_bytes()).hexdigest()
        for name, file in (("train", train), ("test", test))
    }
    np.savez(test, 3)
    now = checksums_of(train, test)
    assert now["train.npz"] == before["train.npz"]
    assert data_mismatch(before, now) == (
        f"test.npz (checksum {before['test.npz'][:12]}, now {now['test.npz'][:12]})"
    )
    assert data_mismatch(before, before) == data_mismatch({}, now) == ""


def test_a_rank_that_sees_other_data_than_the_launcher_refuses_them(tmp_path):
    def files(seed: int, labels: list[int]) -> list[PatchFile]:
        images = np.random.default_rng(seed).integers(0, 256, (500, 64, 128), np.uint8)
        sides = {"train.npz": np.ones(500, np.int32), "test.npz": np.resize(labels, 500)}
        for name, side in sides.items():
            write_patches(tmp_path / name, 500, [images], side)
        return [open_patches(tmp_path / name) for name in sides]

    expected = sample_checksum(*files(0, [0, 1]))
    refuse_other_sample(expected, *files(0, [0, 1]))
    for seed, labels in ((1, [0, 1]), (0, [1, 0])):
        train, test = files(seed, labels)
        with pytest.raises(InputError, match=r"train\.npz or .*test\.npz is not the file that the"):
            refuse_other_sample(expected, train, test)
    train, test = files(0, [0, 1])
    with pytest.raises(InputError):
        refuse_other_sample(expected, replace(train, shifts=np.zeros((500, 2), np.int16)), test)


@pytest.fixture(scope="module")
def cut_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cut") / "cut.npz"


def _write_sparse_npz(path: Path, count: int) -> None:
    """An `.npz` of `count` black patches (the last pixel is 77), written byte by byte with a hole inside."""
    header, labels = io.BytesIO(), io.BytesIO()
    npy.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (count, 64, 128)})
    np.save(labels, np.ones(count, np.int32))
    size = len(header.getvalue()) + count * 64 * 128
    with path.open("wb") as file:
        directory = _local_entry(file, b"arr_0.npy", size)
        file.write(header.getvalue())
        file.seek(count * 64 * 128 - 1, io.SEEK_CUR)
        file.write(bytes([77]))
        directory += _local_entry(file, b"arr_1.npy", len(labels.getvalue()))
        file.write(labels.getvalue())
        begin = file.tell()
        file.write(directory)
        end = file.tell()
        file.write(struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 2, 2, end - begin, begin))
        file.write(struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1))
        file.write(struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 2, 2, 0xFFFFFFFF, 0xFFFFFFFF, 0))


def _local_entry(file: io.BufferedWriter, name: bytes, size: int) -> bytes:
    """Write a stored zip64 entry's header at the file's position; returns its line of the directory."""
    offset = file.tell()
    both = struct.pack("<HHQQ", 1, 16, size, size)
    fixed = struct.pack("<HHHHHIIIH", 45, 0, 0, 0, 33, 0, 0xFFFFFFFF, 0xFFFFFFFF, len(name))
    file.write(b"PK\x03\x04" + fixed + struct.pack("<H", len(both)) + name + both)
    extra = struct.pack("<HHQQQ", 1, 24, size, size, offset)
    return (
        b"PK\x01\x02" + struct.pack("<H", 45) + fixed
        + struct.pack("<HHHHII", len(extra), 0, 0, 0, 0, 0xFFFFFFFF) + name + extra
    )  # fmt: skip
