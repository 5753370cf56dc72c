"""Patches on disk: `.npz` files written as a stream and read in place.

An `.npz` holds `arr_0`, uint8 [N, 64, 128] (left half optical, right half SAR), and `arr_1`,
int32 [N] (1 match, 0 non-match), uncompressed, so that the images can be memory-mapped where
they lie in the file and all ranks of a host share one copy in the page cache.
"""

import struct
import threading
import tokenize
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from sdnet.errors import InputError
from sdnet.files import whole_file

PATCH_SHAPE = (64, 128)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # of every entry, so that equal data make equal files
# NumPy parses headers with `ast`, which Python 3.11 cannot do in two threads at once (gh-106905).
_PARSING = threading.Lock()
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, length of the name, length of the extra field

# What the readers of zip files and of NumPy's headers raise for bytes that they do not understand.
_NOT_WHOLE = (
    OSError, EOFError, ValueError, NotImplementedError, SyntaxError, tokenize.TokenError,
    struct.error, zipfile.BadZipFile,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PatchFile:
    """An open `.npz`: images uint8 [N, 64, 128], memory-mapped and read-only; labels int32 [N]."""

    path: Path
    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def write_patches(
    path: Path, num_patches: int, chunks: Iterable[np.ndarray], labels: np.ndarray, sync: bool = True
) -> None:
    """Stream `num_patches` patches to an `.npz`, which appears whole or not at all.

    chunks: uint8 [n, 64, 128] each, `num_patches` in all. labels: integers [num_patches].
    Files above 4 GB are zip64. sync: see `whole_file`. The same patches always make the same bytes.
    """
    with whole_file(path, sync) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _write_images(archive, num_patches, chunks)
        with archive.open(_entry("arr_1.npy"), "w", force_zip64=True) as member:
            npy.write_array(member, np.ascontiguousarray(labels, np.int32), allow_pickle=False)


def open_patches(path: Path) -> PatchFile:
    """Map an `.npz` in place. Raises InputError for a file that is not one of ours or `numpy.savez`'s."""
    try:
        with zipfile.ZipFile(path) as archive:
            images = _map_member(path, archive, "arr_0.npy")
            labels = _map_member(path, archive, "arr_1.npy")
    except FileNotFoundError:
        raise InputError(f"{path} is not there; make it with `preprocess`, or give another path") from None
    except _NOT_WHOLE as error:
        raise InputError(f"{path} is not a whole .npz ({_line(error)}); make or copy it again") from None
    _check(path, images, labels)
    return PatchFile(path, images, labels.astype(np.int32))


def _write_images(archive: zipfile.ZipFile, num_patches: int, chunks: Iterable[np.ndarray]) -> None:
    written = 0
    with archive.open(_entry("arr_0.npy"), "w", force_zip64=True) as member:
        header = {"descr": "|u1", "fortran_order": False, "shape": (num_patches, *PATCH_SHAPE)}
        npy.write_array_header_1_0(member, header)
        for chunk in chunks:
            assert chunk.dtype == np.uint8 and chunk.shape[1:] == PATCH_SHAPE, (chunk.dtype, chunk.shape)
            member.write(np.ascontiguousarray(chunk).data)
            written += len(chunk)
    assert written == num_patches, (written, num_patches)


def _entry(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(name, date_time=_EPOCH)


def _map_member(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """The array of one member, mapped where it lies."""
    if name not in archive.namelist():
        raise InputError(f"{path} has no {name.removesuffix('.npy')}; it holds {archive.namelist()}")
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise InputError(f"{path} is compressed and cannot be mapped; write it with numpy.savez")
    with path.open("rb") as file:
        file.seek(info.header_offset)
        signature, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        if signature != b"PK\x03\x04":
            raise ValueError(f"no entry where {name} should begin")
        begin = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        file.seek(begin)
        shape, fortran, dtype = _npy_header(file)
        data = file.tell()
    if dtype.hasobject:
        raise InputError(f"{path} holds pickled objects in {name}; only plain numbers are read")
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if data - begin + size != info.file_size:
        raise ValueError(f"{name} should hold {size} bytes after its header")
    if size == 0:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, "r", data, shape, "F" if fortran else "C")


def _npy_header(file: object) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    with _PARSING:
        shape, fortran, dtype = read(file)
    return shape, fortran, dtype


def _check(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != PATCH_SHAPE:
        raise InputError(
            f"{path}: arr_0 is {images.dtype} {list(images.shape)}; it must be uint8 [N, 64, 128], "
            "optical left and SAR right"
        )
    if not images.flags.c_contiguous:
        raise InputError(f"{path}: arr_0 is in Fortran order; write it with numpy.ascontiguousarray")
    if labels.dtype.kind not in "iu" or labels.shape != (len(images),):
        raise InputError(
            f"{path}: arr_1 is {labels.dtype} {list(labels.shape)}; it must be integers [{len(images)}], "
            "one label a patch"
        )
    if len(labels) == 0:
        raise InputError(f"{path} holds no patches; look at the images it was made of")
    strange = np.setdiff1d(labels, (0, 1))
    if strange.size:
        raise InputError(
            f"{path}: arr_1 holds the label {strange[0]}; labels are 1 (match) and 0 (non-match)"
        )


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
