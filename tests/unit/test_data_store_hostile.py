"""Archives with false headers are refused in one line, before anything is mapped or allocated."""

import hashlib
import io
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sdnet.data.checksums import checksums_of
from sdnet.data.store import open_patches
from sdnet.errors import InputError


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 64, 128), np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hostile.npz"


HOSTILE = {
    "bool": "(True, 64, 128)",
    "negative": "(-1, -64, 128)",
    "beyond int64": "(99999999999999999999, 64, 128)",
    "a product beyond int64": "(4294967296, 4294967296, 128)",
    "5000 digits": f"({'9' * 5000}, 64, 128)",
    "a float": "(3.0, 64, 128)",
    "a list": "[3, 64, 128]",
    "a text": "'3'",
    "deep nesting": "(" * 150 + "3" + ",)" * 150,
    "a long sum": "+".join(["1"] * 4000),
    "signs": "(" + "-" * 4000 + "1, 64, 128)",
    "one dimension": "(24576,)",
    "no dimension": "()",
}


def _with_header(header: str, data: bytes, labels: np.ndarray, copies: int = 1) -> bytes:
    member = header.encode() + b" " * (63 - (len(header) + 10) % 64) + b"\n"
    images = b"\x93NUMPY\x02\0" + struct.pack("<I", len(member)) + member + data
    file, saved_labels = io.BytesIO(), io.BytesIO()
    np.save(saved_labels, labels)
    with zipfile.ZipFile(file, "w") as archive:
        for _ in range(copies):
            archive.writestr("arr_0.npy", images)
        archive.writestr("arr_1.npy", saved_labels.getvalue())
    return file.getvalue()


def _header(shape: str, descr: str = "'|u1'", fortran: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"


@pytest.mark.parametrize("shape", HOSTILE.values(), ids=HOSTILE)
def test_an_invalid_shape_is_refused_in_one_line(path, shape):
    path.write_bytes(_with_header(_header(shape), noise(3).tobytes(), np.ones(3, int)))
    with pytest.raises(InputError) as refusal:
        open_patches(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize(
    "descr",
    [
        "'|O'",
        "'|V1'",
        "'|S0'",
        "'<U0'",
        "[('a', '|u1')]",
        "('|u1', (64,))",
        "'|b1'",
        "3",
        "'nonsense'",
        "None",
    ],
)
def test_a_type_that_is_not_uint8_is_refused_before_anything_is_mapped(path, descr):
    header = _header("(999999999999, 64, 128)", descr)
    path.write_bytes(_with_header(header, noise(3).tobytes(), np.ones(3, int)))
    with pytest.raises(InputError) as refusal:
        open_patches(path)
    assert "\n" not in str(refusal.value)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_two_members_of_one_name_is_refused(path):
    whole = _with_header(_header("(3, 64, 128)"), noise(3).tobytes(), np.ones(3, int), copies=2)
    path.write_bytes(whole)
    with pytest.raises(InputError, match="has 2 arr_0, but arr_0.npy, arr_0.npy, arr_1.npy; write it"):
        open_patches(path)


def test_an_encrypted_archive_is_refused(path):
    content = bytearray(_with_header(_header("(3, 64, 128)"), noise(3).tobytes(), np.ones(3, int)))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="is encrypted; write it with numpy.savez"):
        open_patches(path)


def test_a_pipe_is_refused_and_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "train.npz")
    with pytest.raises(InputError, match="is a pipe or a device; give a file"):
        open_patches(tmp_path / "train.npz")


def test_one_changed_pixel_is_found_by_the_checksum_of_the_archive(tmp_path):
    train, test = tmp_path / "train.npz", tmp_path / "test.npz"
    for file in (train, test):
        np.savez(file, noise(4), np.ones(4, int))
    content = bytearray(train.read_bytes())
    content[len(content) // 2] ^= 1
    train.write_bytes(content)
    with pytest.raises(
        InputError, match=r"train\.npz is corrupt: arr_0\.npy does not match its CRC-32; make or"
    ):
        checksums_of(train, test)


def test_a_member_that_is_no_array_of_ours_is_not_decompressed(path):
    np.savez(path, noise(4), np.ones(4, int))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("bomb", bytes(1 << 20), zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 10] = 99  # a compression that nothing can undo
    path.write_bytes(content)
    assert checksums_of(path, path)["train.npz"] == hashlib.sha256(content).hexdigest()


def test_a_pointer_of_git_lfs_is_named_as_one(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", encoding="utf-8")
    with pytest.raises(
        InputError, match="hostile.npz is a Git LFS pointer, not the file itself; run `git lfs"
    ):
        open_patches(path)
